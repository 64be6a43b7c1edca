from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from visionlab import config as configs
from visionlab.backbones.convex import ConvexMLP
from visionlab.backbones.nonnegative import NonNegativeWeight
from visionlab.data.laplacian import LaplacianData
from visionlab.proximal import LearnedProximalNetwork, ProximalNetwork
from visionlab.tasks.optimizers import Adam
from visionlab.tasks.proximal_matching import ProximalMatching

# Lightning's own use of torch
pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")


def fit(task, batches=6, **trainer):
    images = [{"image": torch.rand(4, 1, 12, 12)} for _ in range(batches)]
    L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **trainer,
    ).fit(task, DataLoader(images, batch_size=None), DataLoader(images[:1], batch_size=None))
    return task


def net(**options):
    torch.manual_seed(0)
    return LearnedProximalNetwork(1, 4, **{"strides": (1, 2), "noise_level": 0.1, **options})


def test_training_keeps_the_weights_nonnegative_and_logs_quality():
    task = fit(ProximalMatching(net(), Adam(0.1)))
    weights = [m.weight for m in task.model.modules() if isinstance(m, NonNegativeWeight)]
    assert all((w >= 0).all() for w in weights)
    assert any((w == 0).any() for w in weights)  # the projection had work to do
    assert "val/psnr_0.1" in task.trainer.callback_metrics


def test_a_batch_may_bring_its_noise():
    task = ProximalMatching(net())
    batch = {"image": torch.zeros(2, 1, 4, 4), "noise": torch.ones(2, 1, 4, 4)}
    sigma, noise = task.draw(batch)
    assert torch.equal(noise, batch["noise"])
    assert sigma.tolist() == pytest.approx([0.1, 0.1])


def test_learns_soft_thresholding():
    """Proximal matching on Laplacian numbers must come nearer to the prox than its own start."""
    torch.manual_seed(0)
    model = ProximalNetwork(
        ConvexMLP(1, 16, depth=1, activation="squareplus", alpha=1e-3), noise_level=1.0
    )
    y = torch.linspace(-3, 3, 61)[:, None]
    truth = y.sign() * (y.abs() - 1).clamp_min(0)
    error = [float((model(y) - truth).abs().mean().detach())]
    task = ProximalMatching(
        model, Adam(1e-2), pretrain_share=0.3, gammas=(0.5, 0.3), lr_factors=(0.5, 0.1)
    )
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, datamodule=LaplacianData(batch_size=500, batches=400))
    error.append(float((model(y) - truth).abs().mean().detach()))
    assert error[1] < 0.2 < error[0]


def test_one_network_per_range_sees_levels_over_all_of_it():
    task = ProximalMatching(
        net(noise_level=(0.01, 0.2), conditioned=True), pretrain_share=1.0, gammas=()
    )
    torch.manual_seed(0)
    levels = task.draw_levels(torch.zeros(4000, 1, 1, 1))
    assert levels.min() >= 0.01
    assert levels.max() <= 0.2
    middle = (0.01 * 0.2) ** 0.5  # uniform in the logarithm: half below the geometric mean
    assert (levels < middle).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert task.validation_levels == (0.01, pytest.approx(middle), 0.2)
    fit(task)


def test_schedule_reaches_the_optimiser():
    task = ProximalMatching(net(), Adam(0.01), pretrain_share=0.5, warmup=0.0, lr_factors=0.1)
    seen = []
    task.on_before_zero_grad = lambda o: seen.append(o.param_groups[0]["lr"])
    fit(task, batches=8)
    assert seen[0] == pytest.approx(0.01)
    assert seen[-1] == pytest.approx(0.001)


def test_the_same_seed_trains_the_same_network():
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        task = fit(ProximalMatching(net()), batches=3)
        states.append(torch.cat([p.flatten() for p in task.model.parameters()]))
    # images and noise both come from the keyed generators
    assert torch.equal(*states)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ({"noise_level": None}, {}, "must state its noise"),
        ({}, {"gamma_unit": "pixels"}, "gamma_unit is 'sqrt_n' or 'noise'"),
        ({"noise_level": (0.01, 0.2)}, {}, "gamma_unit=noise"),
    ],
)
def test_wrong_settings(model, options, message):
    with pytest.raises(ValueError, match=message):
        ProximalMatching(net(**model), **options)


@pytest.mark.parametrize("name", ["laplacian", "mnist", "photos_gray", "photos_color", "ct"])
def test_configs_build_and_take_a_step(name):
    root = Path(__file__).parents[2] / "configs/proximal"
    read = configs.read(root / f"{name}.yaml", ["task.model.hidden=4"] * (name != "laplacian"))
    task = configs.build(read["task"], key="task")
    if name == "laplacian":
        batch = {"image": torch.randn(8, 1)}
    else:
        batch = {"image": torch.rand(2, 3 if name == "photos_color" else 1, 32, 32)}
    sigma = task.draw_levels(batch["image"])
    assert task.denoise(batch["image"], sigma).shape == batch["image"].shape
    assert task.schedule.at(0.99).loss == "proximal_matching"
