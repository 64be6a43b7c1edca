"""Real launches of tools/train.py on two processes: torchrun, and srun as SLURM would do it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.held import held
from tests.ranks import at_store, on_ranks, open_stores
from visionlab.tasks.curves import read_curves

ROOT = Path(__file__).resolve().parents[2]
TRAIN = str(ROOT / "tools" / "train.py")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
# what a launcher sets, and this process may have inherited
_LAUNCHED = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "SLURM",
    "TORCHELASTIC",
)


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_LAUNCHED)}
    own = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT)}
    return kept | own | more


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A config of 40 steps, for one process; the file ``hold`` beside it holds them at 30."""
    folder = tmp_path_factory.mktemp("launch")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (64, 8, 8)).astype(np.uint8)
    np.savez(folder / "images.npz", images=pixels, labels=np.arange(64) % 4)
    backbone = {"name": "vit", "img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 12,
                "depth": 1}  # fmt: skip
    config = {
        "task": {
            "name": "masked_pretraining",
            "model": {"name": "masked_autoencoder", "backbone": backbone, "mask": "green",
                      "decoder": {"name": "light", "depth": 1, "dim": 16, "heads": 2}},
        },
        "data": {"name": "images", "batch_size": 8, "mean": [0.5], "std": [0.25],
                 "datasets": {"train": held(folder / "images.npz", folder / "hold", 30)}},
        "trainer": {"max_epochs": 10, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1,
                    "checkpoint_every_n_steps": 5, "num_sanity_val_steps": 0,
                    "enable_model_summary": False, "enable_progress_bar": False},
    }  # fmt: skip
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    return folder


def torchrun(tiny: Path, output: Path, *options: str) -> list[str]:
    """``--standalone``: with a fixed port a second attempt would meet the first one's traces."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            *options, TRAIN, "--trust-code", str(tiny / "tiny.yaml"),
            f"output={output}"]  # fmt: skip


def curve(output: Path) -> list[tuple[int, float]]:
    return read_curves(output / "metrics.csv")["train/loss"]


def train_whole(rank: int, tiny: Path) -> int:
    import train  # of tools/, see tests/everything.py

    arguments = [str(tiny / "tiny.yaml"), "trainer.devices=2", f"output={tiny / 'whole'}"]
    return train.main(["--trust-code", *arguments])


@pytest.fixture(scope="module")
def whole(tiny) -> list[tuple[int, float]]:
    """Curve of an undisturbed run on two processes."""
    assert on_ranks(train_whole, tiny) == [0, 0]
    rows = curve(tiny / "whole")
    assert [s for s, _ in rows] == list(range(40))  # 64 images, 2 x 8; each row written once
    return rows


def processes_below(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


def wait_for_rows(output: Path, least: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        path = output / "metrics.csv"
        if path.is_file() and len(path.read_text().splitlines()) > least:
            return
        time.sleep(0.01)
    pytest.fail(f"no {least} rows in {output}: {process.poll()}")


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_a_lost_rank_is_started_again_and_the_run_ends_as_if_nothing_was(tiny, whole):
    output = tiny / "lost"
    (tiny / "hold").touch()
    process = subprocess.Popen(
        torchrun(tiny, output, "--max-restarts", "1"), env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    wait_for_rows(output, 12, process)
    os.kill(max(processes_below(process.pid)), signal.SIGKILL)
    (tiny / "hold").unlink()
    text, _ = process.communicate(timeout=400)
    assert process.returncode == 0, text
    assert text.count("masked_pretraining on 2 x cpu") == 2  # torchrun decides; one process speaks
    assert text.count("checkpoint, curves, pictures and tables") == 1
    assert text.count(f"going on from {output / 'last.ckpt'}") == 1
    assert curve(output) == whole


# As SLURM's since 22.05: CPUs per task are not taken over from the job; of the cluster's default
# to kill all processes once one has failed, srun is told otherwise; its status is the highest one.
SRUN = """#!{python}
import os, signal, subprocess, sys, time
options = [a for a in sys.argv[1:] if a.startswith("--kill")]
command = [a for a in sys.argv[1:] if a not in options]
kills = "--kill-on-bad-exit=0" not in options
cpus = os.environ.get("SRUN_CPUS_PER_TASK")
kept = {{k: v for k, v in os.environ.items() if k != "SLURM_CPUS_PER_TASK"}}
kept |= {{"SLURM_CPUS_PER_TASK": cpus}} if cpus else {{}}
ranks = [subprocess.Popen(command, env=dict(kept, SLURM_PROCID=str(r), SLURM_LOCALID=str(r)))
         for r in range(2)]
def forward(number, frame):
    for rank in ranks:
        rank.send_signal(number)
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, forward)
while any(rank.poll() is None for rank in ranks):
    if kills and any(rank.poll() for rank in ranks):
        forward(signal.SIGTERM, None)
        kills = False
    time.sleep(0.02)
sys.exit(max(r.wait() if r.returncode >= 0 else 128 - r.returncode for r in ranks))
"""

# A process of a run in no time: leaves with its status, a while after the one before it
RANK = """#!{python}
import os, pathlib, signal, sys, time
rank, folder = int(os.environ["SLURM_PROCID"]), pathlib.Path(os.environ["FOLDER"])
status = int(os.environ["STATUSES"].split()[rank])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
(folder / f"cpus{{rank}}").write_text(os.environ.get("SLURM_CPUS_PER_TASK", "none"))
(folder / f"ready{{rank}}").touch()
if "ASKED" in os.environ:
    signal.sigwait([signal.SIGUSR1])
time.sleep(0.3 * rank)
if status > 128:
    os.kill(os.getpid(), status - 128)
sys.exit(status)
"""


@pytest.fixture
def cluster(tiny) -> dict[str, str]:
    """Environment of a batch job, with srun and scontrol that do what SLURM's do."""
    binaries = tiny / "bin"
    binaries.mkdir(exist_ok=True)
    scripts = {
        "srun": SRUN.format(python=sys.executable),
        "scontrol": f'#!/bin/sh\necho "$@" >> {tiny / "scontrol.log"}\n',
        "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
    }
    for name, text in scripts.items():
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755)
    return environment(
        PATH=f"{binaries}:{os.environ['PATH']}", SLURM_JOB_ID="4217", SLURM_JOB_NAME="visionlab",
        SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="2", SLURM_NNODES="1", SLURM_NODEID="0",
        SLURM_NODELIST="127.0.0.1", SLURM_CPUS_PER_TASK="1",
    )  # fmt: skip


def submit(tiny: Path, cluster: dict[str, str], output: Path) -> subprocess.Popen:
    return subprocess.Popen(
        ["bash", str(ROOT / "tools/train.sbatch"), "--trust-code", str(tiny / "tiny.yaml"),
         f"output={output}"],
        env=cluster, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="signals and a shell")
def test_a_job_out_of_time_saves_is_queued_again_and_ends_as_the_whole_run(tiny, cluster, whole):
    output, requeued, hold = tiny / "slurm", tiny / "scontrol.log", tiny / "hold"
    stores = open_stores(2)
    hold.touch()
    job = submit(tiny, cluster | at_store(stores[0].port), output)
    wait_for_rows(output, 12, job)
    job.send_signal(signal.SIGUSR1)  # to the script alone, as --signal=B: does
    heard = read_until(job, "saving after this step", times=2)
    hold.unlink()
    text = heard + job.communicate(timeout=300)[0]
    assert job.returncode == 75, text
    assert "masked_pretraining on 2 x cpu" in text
    assert requeued.read_text() == "requeue 4217\n"
    assert len(curve(output)) < 40

    again = cluster | at_store(stores[1].port) | {"SLURM_RESTART_COUNT": "1"}
    job = submit(tiny, again, output)
    text, _ = job.communicate(timeout=400)
    assert job.returncode == 0, text
    assert "going on from" in text
    assert requeued.read_text() == "requeue 4217\n"
    assert curve(output) == whole


def read_until(process: subprocess.Popen, said: str, *, times: int) -> str:
    """Output up to the line where ``said`` has been said so often."""
    text = ""
    while text.count(said) < times:
        line = process.stdout.readline()
        assert line, text
        text += line
    return text


@pytest.mark.skipif(sys.platform != "linux", reason="signals and a shell")
@pytest.mark.parametrize(
    ("statuses", "asked", "queued"),
    [
        ("75 75", True, True),
        ("75 143", True, True),  # killed while it left
        ("75 75", False, True),  # SIGTERM went to the run alone: preemption
        ("0 143", False, False),
        ("1 1", True, False),
        ("0 0", True, False),  # finished just in time
        ("0 0", False, False),
    ],
)
def test_what_is_queued_again(tmp_path, cluster, statuses, asked, queued):
    requeued, python = tmp_path / "scontrol.log", tmp_path / "python"
    python.write_text(RANK.format(python=sys.executable))
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {requeued}\n')
    for path in (python, tmp_path / "scontrol"):
        path.chmod(0o755)
    own = {"PATH": f"{tmp_path}:{cluster['PATH']}", "STATUSES": statuses, "FOLDER": str(tmp_path),
           "SLURM_CPUS_PER_TASK": "3"} | ({"ASKED": "1"} if asked else {})  # fmt: skip
    job = submit(tmp_path, cluster | own, tmp_path / "run")
    while asked and len(list(tmp_path.glob("ready*"))) < 2:
        assert job.poll() is None
        time.sleep(0.02)
    if asked:
        job.send_signal(signal.SIGUSR1)
    text, _ = job.communicate(timeout=60)
    assert job.returncode == max(map(int, statuses.split())), text
    assert requeued.exists() == queued
    assert [(tmp_path / f"cpus{rank}").read_text() for rank in range(2)] == ["3", "3"]


@pytest.mark.skipif(sys.platform != "linux", reason="a shell")
def test_an_error_is_not_queued_again(tiny, cluster):
    cluster["PATH"] = f"{tiny / 'failing'}:{cluster['PATH']}"
    (tiny / "failing").mkdir(exist_ok=True)
    (tiny / "failing" / "srun").write_text("#!/bin/sh\nexit 3\n")
    (tiny / "failing" / "srun").chmod(0o755)
    (tiny / "scontrol.log").unlink(missing_ok=True)
    job = submit(tiny, cluster, tiny / "error")
    assert job.communicate(timeout=20)[0] == ""
    assert job.returncode == 3
    assert not (tiny / "scontrol.log").exists()


def test_sbatch_script_names_every_signal_it_relies_on():
    text = (ROOT / "tools/train.sbatch").read_text()
    for line in ("--signal=B:USR1@", "--requeue", "--ntasks-per-node=8", "--open-mode=append"):
        assert f"#SBATCH {line}" in text


def arguments(**trainer: Any) -> dict[str, Any]:
    from visionlab.tasks.launch import trainer_arguments

    unused = trainer.pop("unused", False)
    return trainer_arguments(trainer, unused_parameters=unused)


def test_strategies_by_name(monkeypatch):
    from visionlab.tasks.data_parallel import DataParallel
    from visionlab.tasks.sharding import FSDP2Strategy

    for name in [k for k in os.environ if k.startswith(_LAUNCHED)]:
        monkeypatch.delenv(name)
    for unused in (False, True):
        ours = arguments(devices=2, unused=unused)["strategy"]
        assert isinstance(ours, DataParallel)
        assert ours._ddp_kwargs == {"find_unused_parameters": unused}
    assert arguments(devices=1, unused=True)["strategy"] == "auto"
    assert arguments(devices=2, strategy="ddp_spawn")["strategy"] == "ddp_spawn"
    assert not arguments(strategy="fsdp2")["strategy"].shards
    sharded = arguments(strategy="fsdp2_sharded", unused=True, devices=2)["strategy"]
    assert isinstance(sharded, FSDP2Strategy)
    assert sharded.shards
    assert "checkpoint_every_n_steps" not in arguments(checkpoint_every_n_steps=3)


def test_slurm_and_torchrun_say_how_many_processes_there_are(monkeypatch):
    from visionlab.tasks.launch import launched

    for name, value in {"SLURM_NTASKS": "16", "SLURM_NTASKS_PER_NODE": "8", "SLURM_NNODES": "2",
                        "SLURM_JOB_NAME": "run"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert launched() == {"devices": 8, "num_nodes": 2}
    assert arguments(devices=1)["devices"] == 8
    assert len(arguments(devices=1)["plugins"]) == 1  # SLURM without Lightning's own requeue
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert launched() == {}
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4",
                        "WORLD_SIZE": "12"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert launched() == {"devices": 4, "num_nodes": 3}
