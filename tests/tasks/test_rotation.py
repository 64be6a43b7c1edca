"""A folder of sequences through ``Trainer.predict``, from a config."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.ranks import on_ranks
from visionlab import config as configs
from visionlab.rotation import so3
from visionlab.rotation.camera import Camera
from visionlab.rotation.sequences import VirtualCamera
from visionlab.tasks.rotation import Rotation, RotationErrors

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sequences(tmp_path_factory) -> Path:
    """Two recordings and one with stored flows (BUSS), 5 frames each."""
    root = tmp_path_factory.mktemp("sequences")
    rng = np.random.default_rng(7)
    photo = cv2.resize(rng.integers(0, 255, (60, 80)).astype(np.uint8), (640, 480))
    options = {"size": (160, 90), "focal": 140.0, "frames": 5, "peak_deg": 2.0}
    for seed, name in enumerate(["b_first", "a_second"]):
        VirtualCamera(photo, seed=seed, **options).write(root / name)
    clip = VirtualCamera(photo, seed=5, **options)
    (root / "flows").mkdir()
    ys, xs = np.mgrid[:90, :160]
    pixels = np.stack([xs, ys], -1).astype(float)
    camera = Camera.from_focal(1655 * 160 / 1920, 160, 90)
    for i, step in enumerate(clip.truth.steps):
        moved = camera.project(camera.bearings(pixels) @ so3.exp(step))
        np.save(root / "flows" / f"{i}.npy", (moved - pixels).astype(np.float32))
    points = so3.quaternion_from_rotvec(so3.convert(clip.truth.steps, "buss"))
    np.savetxt(root / "flows/rotations.csv", points, delimiter=",")
    return root


def run(config: dict, output: Path) -> list[dict]:
    from visionlab.tasks import training

    training.run({**config, "output": str(output)})
    results = json.loads((output / "results.json").read_text())
    return results[RotationErrors.title]


def config(sequences: Path, **trainer) -> dict:
    made = configs.read(
        ROOT / "configs/rotation/folder.yaml",
        [f"data.root={sequences}", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"],
    )
    made["trainer"] |= trainer
    configs.check(made)
    return made


@pytest.mark.filterwarnings("ignore")
def test_a_folder_runs_from_a_config_and_is_judged(sequences, tmp_path) -> None:
    rows = run(config(sequences), tmp_path / "run")
    ours = {r["sequence"]: r for r in rows if r["method"] == "estimate"}
    assert list(ours) == ["a_second", "b_first", "flows", "mean of 3"]
    assert all(r["mean"] < 0.1 for r in ours.values())
    assert {r["method"] for r in rows} == {"estimate", "zero", "least squares"}
    assert (tmp_path / "run/a_second/rotation.csv").is_file()
    assert ours["mean of 3"]["frames"] == 12


@pytest.mark.filterwarnings("ignore")
def test_what_is_done_is_not_done_again(sequences, tmp_path) -> None:
    first = run(config(sequences), tmp_path / "run")
    marks = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("rotation.csv")}
    (tmp_path / "run/b_first/errors.json").unlink()
    assert run(config(sequences), tmp_path / "run") == first
    again = {p for p, mark in marks.items() if p.stat().st_mtime_ns != mark}
    assert again == {tmp_path / "run/b_first/rotation.csv"}


def test_a_plain_video_needs_a_camera(sequences, tmp_path) -> None:
    task = Rotation()
    task.output = tmp_path
    item = {"path": str(sequences / "a_second/frames"), "name": "x", "index": 0}
    with pytest.raises(ValueError, match="has no calibration; give task"):
        task.predict_step(item, 0)
    task.camera = Camera.from_focal(280.0, 320, 180)  # of twice the size
    result = task.predict_step(item, 0)
    assert (result["frames"], result["errors"]) == (5, [])


@pytest.mark.parametrize("name", ["folder", "buss", "euroc", "kitti", "raft"])
def test_configs_build_their_task(name, tmp_path) -> None:
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"read at the first frame only")
    override = [f"task.flow.weights={weights}"] if name == "raft" else []
    made = configs.read(ROOT / f"configs/rotation/{name}.yaml", override)
    task = configs.build(made["task"], key="task")
    assert isinstance(task, Rotation)
    estimator = task.estimator(Camera.from_fov(60, 480, 270))
    assert len(estimator.voting_points) == 576
    assert task.estimator.refine == ("joint" if name in ("buss", "kitti") else None)


def on_two(rank: int, sequences: Path, output: Path) -> None:
    from visionlab.tasks import training

    made = config(sequences, devices=2, strategy="ddp")
    training.run({**made, "output": str(output)})


@pytest.mark.slow
def test_two_ranks_share_the_sequences(sequences, tmp_path) -> None:
    output = tmp_path / "run"
    on_ranks(on_two, sequences, output)
    found = sorted(p.parent.name for p in output.glob("*/errors.json"))
    assert found == ["a_second", "b_first", "flows"]
    table = json.loads((output / "results.json").read_text())[RotationErrors.title]
    assert len([r for r in table if r["method"] == "zero"]) == 4
