"""Damage to a checkpoint is told, never read."""

import pytest
import torch

from visionlab import checkpoint
from visionlab.checkpoint import CheckpointError


@pytest.fixture
def saved(tmp_path):
    weights = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    checkpoint.save({"state_dict": {"weight": weights, "bias": weights[0]}, "epoch": 3},
                    tmp_path / "m.ckpt")  # fmt: skip
    return tmp_path / "m.ckpt"


def test_every_bit_flip_is_found_or_changes_nothing(saved):
    """torch.load alone would let nearly all of them through."""
    import random

    good, rng = checkpoint.read(saved)["state_dict"], random.Random(0)
    data, silent = saved.read_bytes(), 0
    for _ in range(60):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        saved.write_bytes(changed)
        try:
            found = checkpoint.read(saved)["state_dict"]
        except CheckpointError:
            continue
        assert found.keys() == good.keys()
        assert all(torch.equal(v, good[k]) for k, v in found.items())
        silent += 1
    assert silent < 30


def test_a_damaged_checkpoint_names_the_one_before_it(tmp_path):
    last, earlier = tmp_path / "last.ckpt", tmp_path / checkpoint.PREVIOUS
    checkpoint.save({"state_dict": {}}, last)
    last.write_bytes(last.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match="run again from the start"):
        checkpoint.read(last)
    checkpoint.save({"state_dict": {}}, earlier)
    with pytest.raises(CheckpointError, match=rf"resume from {earlier}"):
        checkpoint.read(last)


def test_any_bit_turned_at_the_end_of_the_file_is_told_or_harmless(tmp_path):
    """Python's zip reader raises several kinds of errors for the records that end an archive."""
    path = tmp_path / "last.ckpt"
    checkpoint.save({"state_dict": {"w": torch.arange(6.0)}}, path)
    data = path.read_bytes()
    for bit in range(8 * (len(data) - 120), 8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            found = checkpoint.read(path)
        except CheckpointError:
            continue
        assert torch.equal(found["state_dict"]["w"], torch.arange(6.0))
