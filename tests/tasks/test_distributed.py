"""Two processes (gloo, CPU) against one with the same global batch."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from visionlab.tasks import training
from visionlab.tasks.curves import read_curves

TRAIN = Path(__file__).resolve().parents[2] / "tools" / "train.py"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_two_processes_train_as_one(tiny_config, tmp_path):
    tiny_config["task"]["mask_key"] = "sample"  # masks follow the sample, whatever its rank
    tiny_config["task"]["model"]["backbone"]["drop_path_rate"] = 0.0
    tiny_config["trainer"]["max_epochs"] = 2
    alone = training.run(tiny_config)
    both = copy.deepcopy(tiny_config)
    both["output"] += "_two"
    both["data"]["batch_size"] //= 2
    both["trainer"] |= {"devices": 2, "strategy": "ddp"}
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(both))
    done = subprocess.run([sys.executable, str(TRAIN), str(path)], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = (read_curves(Path(f) / "metrics.csv")["train/loss"] for f in (alone, both["output"]))
    assert [s for s, _ in one] == [s for s, _ in two]
    assert max(abs(a - b) for (_, a), (_, b) in zip(one, two)) < 1e-4
