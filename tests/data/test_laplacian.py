import pytest
import torch

from visionlab.data.laplacian import LaplacianBatches, LaplacianData


def test_distribution():
    x = next(iter(LaplacianBatches(200_000, 1, scale=2.0)))["image"]
    assert x.shape == (200_000, 1)
    assert x.median().item() == pytest.approx(0.0, abs=0.03)
    assert x.abs().mean().item() == pytest.approx(2.0, rel=0.02)
    assert (x.abs() > 2.0).float().mean().item() == pytest.approx(0.3679, abs=0.005)  # exp(-1)


def test_resumes_in_the_middle_of_an_epoch():
    whole = [b["image"] for b in LaplacianBatches(8, 5, seed=3)]
    broken = LaplacianBatches(8, 5, seed=3)
    steps = iter(broken)
    next(steps), next(steps)
    resumed = LaplacianBatches(8, 5, seed=3)
    resumed.load_state_dict(broken.state_dict())
    rest = [b["image"] for b in resumed]
    assert len(rest) == 3
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], rest, strict=True))
    assert len(list(resumed)) == 5  # the next epoch is whole again


def test_epochs_seeds_and_splits_differ():
    data = LaplacianData(batch_size=8, batches=2)
    train = data.train_dataloader()
    first = next(iter(train))["image"]
    train.set_epoch(1)
    assert not torch.equal(next(iter(train))["image"], first)
    assert not torch.equal(next(iter(data.val_dataloader()))["image"], first)


def test_a_lattice_is_spread_evenly_over_number_and_noise():
    batches = list(LaplacianBatches(2000, 20, scale=2.0, lattice=True))
    x, noise = (torch.stack([b[k] for b in batches])[..., 0] for k in ("image", "noise"))
    assert x.shape == noise.shape == (20, 2000)
    assert x.abs().mean().item() == pytest.approx(2.0, rel=0.01)
    assert (x > 0).float().mean().item() == pytest.approx(0.5, abs=0.002)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.002)
    assert noise.std().item() == pytest.approx(1.0, abs=0.01)

    def deviation(x, noise):  # of a batch's mean of a function of both
        return torch.exp(-((x - noise) ** 2)).mean(1).std()

    independent = deviation(
        torch.stack([b["image"] for b in LaplacianBatches(2000, 20, scale=2.0)])[..., 0],
        torch.randn(20, 2000, generator=torch.Generator().manual_seed(0)),
    )
    assert deviation(x, noise) < independent / 5


def test_each_point_of_a_lattice_is_a_fair_draw():
    batches = LaplacianBatches(4, 4000, lattice=True)
    third = torch.stack([torch.cat([b["image"][2], b["noise"][2]]) for b in batches])
    assert third[:, 0].abs().mean().item() == pytest.approx(1.0, abs=0.06)
    assert third[:, 1].std().item() == pytest.approx(1.0, abs=0.04)
    assert torch.corrcoef(third.T)[0, 1].abs() < 0.06


def test_wrong_numbers():
    with pytest.raises(ValueError, match="at least 1 and scale positive"):
        LaplacianBatches(0, 1)
