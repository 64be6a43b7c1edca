"""EuRoC and TUM-VI: the body's motion as the camera sees it."""

from pathlib import Path

import numpy as np
import pytest

from tests.rotation.sequences.recordings import COUNT, MOUNT, motion, pictures, pose_rows
from visionlab.rotation import so3
from visionlab.rotation.sequences import read_sequence
from visionlab.rotation.trajectory import Trajectory


@pytest.fixture
def euroc(tmp_path: Path) -> tuple[Path, Trajectory]:
    """Pictures at 20 Hz, poses of the body at 100 Hz that begin one picture later."""
    root = tmp_path / "V1_01_easy"
    start = 1403715273262142976
    stamps = [start + i * 50_000_000 for i in range(COUNT)]
    pictures(root / "mav0/cam0/data", [f"{s}.png" for s in stamps])
    listing = "#timestamp [ns],filename\n" + "".join(f"{s},{s}.png\r\n" for s in stamps)
    (root / "mav0/cam0/data.csv").write_text(listing)
    data = np.eye(4)
    data[:3, :3] = MOUNT
    (root / "mav0/cam0/sensor.yaml").write_text(
        "sensor_type: camera\ncomment: VI-Sensor cam0 (MT9M034)\nT_BS:\n  cols: 4\n  rows: 4\n"
        f"  data: [{', '.join(map(repr, data.ravel().tolist()))}]\n"
        "rate_hz: 20\nresolution: [48, 32]\ncamera_model: pinhole\n"
        "intrinsics: [50.0, 51.0, 23.0, 16.0] #fu, fv, cu, cv\n"
        "distortion_model: radial-tangential\n"
        "distortion_coefficients: [-0.28, 0.07, 0.0002, 0.00001]\n"
    )
    body = motion(25, rate=100)
    truth = root / "mav0/state_groundtruth_estimate0"
    truth.mkdir()
    header = "#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y []"
    (truth / "data.csv").write_text(header + ", q_RS_z []\n" + pose_rows(body, start + 50_000_000))
    return root, body


def test_euroc_turns_the_body_into_the_camera(euroc) -> None:
    root, body = euroc
    sequence = read_sequence(root)
    assert sequence.source.count == len(sequence.truth) == COUNT - 1  # the first has no truth
    between = body.steps.reshape(-1, 1, 3)
    first = np.eye(3)
    for step in between[:5, 0]:
        first = first @ so3.exp(step)
    wanted = MOUNT.T @ so3.log(first)  # the same turn in camera axes
    assert sequence.truth.steps[0] == pytest.approx(wanted, abs=1e-9)
    assert sequence.camera.fx == 50
    assert sequence.camera.distortion == pytest.approx((-0.28, 0.07, 0.0002, 0.00001))
    assert np.diff(sequence.truth.times) == pytest.approx(0.05, abs=1e-6)
    assert next(sequence.source.frames()).image.shape == (32, 48)


@pytest.fixture
def tumvi(tmp_path: Path) -> tuple[Path, Trajectory]:
    root = tmp_path / "dataset-room1_512_16"
    start = 1520530308199447626
    stamps = [start + i * 50_000_000 for i in range(COUNT)]
    pictures(root / "mav0/cam0/data", [f"{s}.png" for s in stamps])
    listing = "#timestamp [ns],filename\n" + "".join(f"{s},{s}.png\n" for s in stamps)
    (root / "mav0/cam0/data.csv").write_text(listing)
    (root / "dso").mkdir()
    pose = np.eye(4)
    pose[:3, :3] = MOUNT.T  # T_cam_imu: body -> camera
    rows = "".join(f"  - {row.tolist()}\n" for row in pose)
    (root / "dso/camchain.yaml").write_text(
        f"cam0:\n  T_cam_imu:\n{rows}  cam_overlaps: [1]\n  camera_model: pinhole\n"
        "  distortion_coeffs: [0.0034, 0.0007, -0.0020, 0.0002]\n"
        "  distortion_model: equidistant\n  intrinsics: [20.0, 20.1, 23.0, 16.0]\n"
        "  resolution: [48, 32]\n  rostopic: /cam0/image_raw\n"
    )
    body = motion(40, rate=120)
    (root / "mav0/mocap0").mkdir()
    header = "#timestamp [ns], p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x []\n"
    (root / "mav0/mocap0/data.csv").write_text(header + pose_rows(body, start))
    return root, body


def test_tumvi_is_a_fisheye_on_the_imu(tumvi) -> None:
    root, body = tumvi
    sequence = read_sequence(root)
    assert sequence.camera.model == "fisheye"
    wanted = body.turned(MOUNT).at(np.arange(COUNT) * 0.05)
    assert np.abs(np.abs((sequence.truth.quaternions * wanted).sum(1)) - 1).max() < 1e-8
    assert len(sequence.truth) == COUNT


def test_a_hole_in_the_motion_capture_is_not_bridged(tumvi) -> None:
    root, _ = tumvi
    table = root / "mav0/mocap0/data.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:14] + lines[30:]) + "\n")  # none from .1 to .24 s
    assert len(read_sequence(root).truth) == 3
