"""What goes wrong on rank 0 while shards are written is told to all, and costs no checkpoint."""

import pytest
import torch

from tests.ranks import on_ranks
from visionlab import checkpoint, sharded_checkpoint


def test_a_damaged_earlier_checkpoint_does_not_cost_the_new_one(tmp_path, caplog):
    path, new = tmp_path / "last.ckpt", tmp_path / "last.ckpt.shards-new"
    path.write_bytes(b"damaged")
    for folder in (new, tmp_path / "last.ckpt.shards-old"):
        folder.mkdir()
    content = {"step": 3, "weight": torch.ones(2), "shards": {"folder": new.name}}
    assert sharded_checkpoint._finish(path, new, content) == []
    assert checkpoint.read(path, tensors=False)["shards"]["folder"] == new.name
    assert "older shards" in caplog.text
    assert {p.name for p in tmp_path.glob("*.shards-*")} == {new.name, "last.ckpt.shards-old"}


def test_shards_that_no_checkpoint_names_are_removed(tmp_path):
    path = tmp_path / "last.ckpt"
    for name in ("a", "b", "c"):
        folder = tmp_path / f"last.ckpt.shards-{name}"
        folder.mkdir()
        assert sharded_checkpoint._finish(path, folder, {"shards": {"folder": folder.name}}) == []
    assert {p.name[-1] for p in tmp_path.glob("*.shards-*")} == {"b", "c"}


def fails_on_first(rank: int) -> str:
    import torch.distributed as dist

    def fails() -> None:
        raise checkpoint.CheckpointError("rank 0 alone saw this")

    dist.init_process_group("gloo")
    try:
        sharded_checkpoint._on_first(fails)
    except (checkpoint.CheckpointError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        dist.destroy_process_group()
    return "nothing was raised"


@pytest.mark.slow
def test_an_error_on_the_first_rank_reaches_all():
    first, second = on_ranks(fails_on_first, seconds=120)
    assert first == "CheckpointError: rank 0 alone saw this"
    assert second.startswith("RuntimeError: rank 0 failed")
    assert first in second
