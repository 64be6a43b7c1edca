import os
import sys
from pathlib import Path

import pytest

from visionlab.tasks import training
from visionlab.tasks.base import Task
from visionlab.tasks.memory import keep_freed_memory

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))


def test_only_where_the_c_library_has_the_setting(monkeypatch):
    assert keep_freed_memory() in (True, False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.filterwarnings("ignore")
def test_a_run_does_not_grow(tiny_config, monkeypatch):
    """A short look; `tools/benchmark.py memory` takes 20,000 steps of the quickstart."""
    import benchmark_memory

    samples = []
    start = Task.on_train_batch_start

    def sampled(self, batch, batch_idx):
        start(self, batch, batch_idx)
        samples.append((self.global_step, benchmark_memory.resident_mb(os.getpid())))

    monkeypatch.setattr(Task, "on_train_batch_start", sampled)
    tiny_config["trainer"] |= {"max_epochs": 60, "checkpoint_every_n_steps": 50}
    training.run(tiny_config)
    report = benchmark_memory.summarise(samples, 300)
    assert report["growth_mb"] < 6, report


def test_growth_is_the_last_tenth_against_the_second():
    import benchmark_memory

    samples = [(s, 100.0 if s < 50 else 100.0 + s / 100) for s in range(1000)]
    report = benchmark_memory.summarise(samples, 1000)
    assert (report["early_mb"], report["late_mb"]) == (101.5, 109.5)
    assert report["growth_mb"] == 8.0
