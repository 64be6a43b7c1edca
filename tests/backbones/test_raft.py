"""RAFT's weights come from a local file, all of them, or not at all."""

import pytest
import torch

from visionlab.backbones.raft import raft_small
from visionlab.checkpoint import CheckpointError


def test_a_state_dict_comes_back_whole(tmp_path):
    torch.manual_seed(0)
    net = raft_small()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    again = raft_small(tmp_path / "w.pth")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in net.state_dict().items())
    state = net.state_dict()
    state.pop("mask_predictor.conv.bias", None)
    torch.save({"other": torch.zeros(1), **state}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="unexpected other"):
        raft_small(tmp_path / "x.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such weights file: .*gone\.pth"):
        raft_small(tmp_path / "gone.pth")
