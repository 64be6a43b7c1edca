from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from visionlab.tasks.data_parallel import (
    _BUFFERS,
    DataParallel,
    has_batch_statistics,
    meet_once_a_step,
)


class Probe(L.LightningModule):
    def __init__(self, *layers: nn.Module, accumulate: int = 1) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(2, 2), *layers)
        self._trainer = SimpleNamespace(accumulate_grad_batches=accumulate)


def options(task, monkeypatch, *, device="cpu", **kwargs):
    monkeypatch.setattr(DDPStrategy, "configure_ddp", lambda self: None)
    monkeypatch.setattr(DDPStrategy, "root_device", torch.device(device))
    monkeypatch.setattr(Probe, "trainer", property(lambda self: self._trainer))
    strategy = DataParallel(**kwargs)
    strategy._lightning_module = task
    strategy.configure_ddp()
    return strategy._ddp_kwargs


def test_buffers_travel_only_where_they_are_statistics(monkeypatch):
    assert not options(Probe(), monkeypatch)[_BUFFERS]
    assert not options(Probe(nn.LayerNorm(2)), monkeypatch)[_BUFFERS]
    assert options(Probe(nn.BatchNorm1d(2)), monkeypatch)[_BUFFERS]


def test_statistics_are_those_of_batches():
    assert has_batch_statistics(nn.Sequential(nn.InstanceNorm2d(2, track_running_stats=True)))
    assert not has_batch_statistics(nn.BatchNorm2d(2, track_running_stats=False))


@pytest.mark.parametrize(
    ("device", "accumulate", "unused", "static"),
    [("cpu", 1, False, True), ("cpu", 2, False, False), ("cpu", 1, True, False),
     ("cuda", 1, False, False)],
)  # fmt: skip
def test_the_graph_is_static_where_it_can_be(monkeypatch, device, accumulate, unused, static):
    task = Probe(accumulate=accumulate)
    found = options(task, monkeypatch, device=device, find_unused_parameters=unused)
    assert found["static_graph"] == static
    assert found["find_unused_parameters"] == unused


def test_lightning_does_not_ask_before_every_step():
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    own = trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor  # fails where Lightning renames it
    meet_once_a_step(trainer)
    assert trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor != own
