"""Two processes that are killed go on exactly, with their own masks, also on other numbers."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import new_meeting, on_ranks
from tests.tasks.test_ranks import config, write_images
from visionlab import checkpoint
from visionlab.masking.autoencoder import MaskedAutoencoder
from visionlab.tasks import launch, training
from visionlab.tasks.curves import read_curves
from visionlab.tasks.masked_pretraining import MaskedPretraining

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]

STOP = 5  # of six steps; saved after every second
STRATEGIES = ("ddp", "fsdp2", "fsdp2_sharded")


class Killed(BaseException):
    pass


def made(folder: Path, name: str, **trainer: Any) -> dict[str, Any]:
    node = copy.deepcopy(config(folder, name, "pretraining", ranks=2, **trainer))
    node["task"] |= {"mask_key": "step", "picture_every_epochs": 0}
    node["trainer"]["checkpoint_every_n_steps"] = 2
    return node


def run_recorded(node: dict[str, Any], *, stop: int | None = None, resume: Path | None = None):
    """Masks of each training step, by step; ``stop`` kills the run before that step."""
    masks: dict[int, torch.Tensor] = {}
    loss, forward = MaskedPretraining.loss, MaskedAutoencoder.forward

    def counted(self, batch, batch_idx):
        if self.global_step == stop:
            raise Killed
        self.model.step_now = self.global_step
        return loss(self, batch, batch_idx)

    def recorded(self, *args, **kwargs):
        out = forward(self, *args, **kwargs)
        if self.training:
            masks[self.step_now] = out.mask
        return out

    MaskedPretraining.loss, MaskedAutoencoder.forward = counted, recorded
    new_meeting()
    try:
        training.run(node, resume)
    except Killed:
        launch.part()
    finally:
        MaskedPretraining.loss, MaskedAutoencoder.forward = loss, forward
    return masks


def train_all(rank: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for strategy in STRATEGIES:
        whole, parts = (made(folder, f"{strategy}{x}", strategy=strategy) for x in ("", " parts"))
        found[strategy] = run_recorded(whole)
        before = run_recorded(parts, stop=STOP)
        last = folder / f"{strategy} parts" / "last.ckpt"
        after = run_recorded(parts, resume=last)
        found[f"{strategy} before"], found[f"{strategy} after"] = before, after
    # another strategy goes on with the checkpoint of this one
    node = made(folder, "crossed", strategy="fsdp2")
    run_recorded(node, stop=STOP)
    node["trainer"]["strategy"] = "ddp"
    run_recorded(node, resume=folder / "crossed" / "last.ckpt")
    found["failed"] = failing_save(rank, folder)
    return found


def failing_save(rank: int, folder: Path) -> str:
    """What a sharded save says when the disk of rank 1 is full."""
    from torch.distributed.checkpoint import HuggingFaceStorageWriter

    node = made(folder, "full", strategy="fsdp2_sharded")
    run_recorded(node, stop=STOP)
    write = HuggingFaceStorageWriter.write_data

    def full(self, plan, planner):
        raise OSError(28, "No space left on device")

    if rank == 1:
        HuggingFaceStorageWriter.write_data = full
    new_meeting()
    try:
        training.run(node, folder / "full" / "last.ckpt")
    except OSError as error:
        launch.part()
        return str(error)
    finally:
        HuggingFaceStorageWriter.write_data = write
    return ""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("resume")
    write_images(folder)
    return folder, on_ranks(train_all, folder, meetings=3 * len(STRATEGIES) + 4)


def curve(folder: Path) -> list[tuple[int, float]]:
    return read_curves(folder / "metrics.csv")["train/loss"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_killed_run_ends_as_the_whole_one(runs, strategy):
    folder, _ = runs
    assert len(curve(folder / strategy)) == 6
    assert curve(folder / strategy) == curve(folder / f"{strategy} parts")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_masks_differ_between_ranks_and_repeat_on_resume(runs, strategy):
    _, (first, second) = runs
    for step in range(6):
        assert not torch.equal(first[strategy][step], second[strategy][step])
    for rank in (first, second):
        assert sorted(rank[f"{strategy} after"]) == [4, 5]  # saved after four
        for part in ("before", "after"):
            for step, mask in rank[f"{strategy} {part}"].items():
                assert torch.equal(mask, rank[strategy][step])


def test_another_strategy_goes_on(runs):
    folder, _ = runs
    expected = [v for _, v in curve(folder / "ddp")]
    assert [v for _, v in curve(folder / "crossed")] == pytest.approx(expected, abs=1e-5)


def test_a_full_disk_on_one_rank_stops_all_and_keeps_the_old_checkpoint(runs):
    folder, ranks = runs
    for rank in ranks:
        assert "No space left on device" in rank["failed"]
        assert "is intact" in rank["failed"]
    assert checkpoint.read(folder / "full" / "last.ckpt")["global_step"] == 4
    held = {p.name for p in (folder / "full").glob("*.shards-*")}
    assert len(held) == 2  # of the last checkpoint and the one before


def test_one_process_goes_on_from_two(runs, tmp_path):
    """Same global batch; masks by sample, since by step they follow the rank."""
    folder, _ = runs
    one, two = (copy.deepcopy(config(folder, n, "pretraining", ranks=1)) for n in ("one", "two"))
    for node in (one, two):
        node["task"]["picture_every_epochs"] = 0
    training.run(one)
    on_ranks(start_only, folder, meetings=1)
    training.run(two, folder / "two" / "last.ckpt")
    expected = [v for _, v in curve(folder / "one")]
    assert [v for _, v in curve(folder / "two")] == pytest.approx(expected, abs=1e-5)


def start_only(rank: int, folder: Path) -> None:
    node = made(folder, "two", strategy="fsdp2_sharded")
    node["task"]["mask_key"] = "sample"
    run_recorded(node, stop=STOP)
