"""Two processes (gloo, CPU) end with the weights of one process on the same global batches."""

import sys
import warnings
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from multitask_fixture import config, write_archives

from tests.ranks import on_ranks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# every pick split over both ranks (one of 3 pictures: shares of 2 and 1), or whole picks dealt
SCENARIOS = {
    "split": {"schedule": "joint"},
    "dealt": {"schedule": "sampled", "tasks_per_step": 2, "alpha": 0.0},
}


def train(folder: Path, scenario: str, *, ranks: int, weights: str | None) -> dict:
    """Weights after four steps of SGD with momentum."""
    import lightning as L

    from visionlab import config as configs
    from visionlab.data.randomness import seed_all

    warnings.simplefilter("ignore")
    node = config(folder, Path("unused"))
    node["data"] |= SCENARIOS[scenario] | {"spread": scenario == "dealt", "steps_per_epoch": 2}
    node["task"] |= {"optimizer": {"name": "sgd", "lr": 0.05}, "weights": weights}
    if scenario == "dealt":
        # ranks that hold different tasks see each other's live rows of the information table, one
        # process, which runs pick after pick, sees the running rows: here the terms differ
        node["task"]["routing"] = None
    seed_all(3)
    data, task = (configs.build(node[k], key=k) for k in ("data", "task"))
    data.seed = task.seed = 3
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=ranks,
        strategy="auto" if ranks == 1 else "ddp_find_unused_parameters_true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(task, datamodule=data)
    return {k: v.clone() for k, v in task.state_dict().items()}


def train_all(rank: int, folder: str) -> None:
    """One of two ranks, as a launcher would start it."""
    for scenario, weights in (("split", None), ("split", "uncertainty"), ("dealt", None)):
        state = train(Path(folder), scenario, ranks=2, weights=weights)
        torch.save(state, Path(folder) / f"{scenario}_{weights}_{rank}.pt")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ddp")
    write_archives(folder)
    on_ranks(train_all, str(folder))
    return folder


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on tiny runs
@pytest.mark.parametrize(
    ("scenario", "weights"), [("split", None), ("split", "uncertainty"), ("dealt", None)]
)
def test_two_ranks_equal_one_process(two_ranks, scenario, weights):
    one = train(two_ranks, scenario, ranks=1, weights=weights)
    ranks = [torch.load(two_ranks / f"{scenario}_{weights}_{r}.pt") for r in range(2)]
    start = train_start(two_ranks, weights)
    moved = max(float((one[k] - start[k]).abs().max()) for k in one)
    assert moved > 1e-2  # the comparison is about a run that learnt something
    for state in ranks:
        for key, value in one.items():
            assert torch.allclose(value, state[key], rtol=0, atol=1e-5), key


def train_start(folder: Path, weights: str | None) -> dict:
    """Weights before the first step."""
    from visionlab import config as configs
    from visionlab.data.randomness import seed_all

    node = config(folder, Path("unused"))
    node["task"] |= {"optimizer": {"name": "sgd", "lr": 0.05}, "weights": weights}
    seed_all(3)
    configs.build(node["data"], key="data")
    return configs.build(node["task"], key="task").state_dict()


def test_ranks_need_find_unused_parameters(two_ranks):
    """Without it the second step would fail inside torch: say so before the first."""
    import lightning as L
    from torch.nn.parallel import DistributedDataParallel

    from visionlab import config as configs

    task = configs.build(config(two_ranks, Path("unused"))["task"], key="task")
    wrapper = DistributedDataParallel.__new__(DistributedDataParallel)
    torch.nn.Module.__init__(wrapper)
    wrapper.find_unused_parameters = False
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    task.trainer = trainer
    trainer.strategy.model = wrapper
    with pytest.raises(ValueError, match="strategy=ddp_find_unused_parameters_true"):
        task.on_fit_start()
