"""Each reader on a tiny fixture in the true format of its data set."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from visionlab.rotation import so3
from visionlab.rotation.camera import Camera
from visionlab.rotation.sequences import SEQUENCES, detect_format, read_sequence
from visionlab.rotation.sequences.base import read_flow
from visionlab.rotation.trajectory import Trajectory
from visionlab.rotation.trajectory_files import write_csv, write_tum

COUNT = 6
PICTURE = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (32, 1))  # 48 x 32
SMALL = Camera(50.0, 51.0, 23.0, 16.0, 48, 32)


def motion(count: int, *, rate: float, seed: int = 0) -> Trajectory:
    steps = np.random.default_rng(seed).normal(size=(count - 1, 3)) * 0.02
    return Trajectory.from_steps(steps, np.arange(count) / rate)


def pictures(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        cv2.imwrite(str(folder / name), PICTURE)


def pose_rows(poses: Trajectory, start_ns: int) -> str:
    rows = []
    for time, (x, y, z, w) in zip(poses.times, poses.quaternions):
        stamp = start_ns + round(time * 1e9)
        rows.append(f"{stamp},0.1,0.2,0.3,{w:.12f},{x:.12f},{y:.12f},{z:.12f}")
    return "\n".join(rows) + "\n"


MOUNT = so3.exp([0.3, -1.1, 0.5])  # camera axes -> body axes


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


@pytest.fixture
def tum(tmp_path: Path) -> tuple[Path, Trajectory]:
    root = tmp_path / "rgbd_dataset_freiburg1_xyz"
    times = 1305031102.175304 + np.arange(COUNT) / 30
    pictures(root / "rgb", [f"{t:.6f}.png" for t in times])
    listing = "# color images\n# file: 'rgbd_dataset_freiburg1_xyz.bag'\n# timestamp filename\n"
    (root / "rgb.txt").write_text(listing + "".join(f"{t:.6f} rgb/{t:.6f}.png\n" for t in times))
    poses = motion(30, rate=100)
    shifted = Trajectory(poses.frames, poses.times + times[0] - 0.005, poses.quaternions)
    write_tum(shifted, root / "groundtruth.txt")
    return root, shifted


def test_tum_interpolates_poses_at_the_pictures(tum) -> None:
    root, poses = tum
    sequence = read_sequence(root)
    assert len(sequence.truth) == COUNT
    assert sequence.camera.fx == 517.3
    assert len(sequence.camera.distortion) == 5
    wanted = poses.at(sequence.truth.times)
    assert np.abs(np.abs((sequence.truth.quaternions * wanted).sum(1)) - 1).max() < 1e-9


def test_tum_of_an_unknown_camera_asks_for_it(tum) -> None:
    root, _ = tum
    renamed = root.rename(root.with_name("my_own"))
    with pytest.raises(ValueError, match="calibration of 'my_own' is not known"):
        read_sequence(renamed)
    assert read_sequence(renamed, camera=SMALL).camera is SMALL


@pytest.fixture
def kitti(tmp_path: Path) -> tuple[Path, Trajectory]:
    root = tmp_path / "dataset/sequences/04"
    pictures(root / "image_0", [f"{i:06d}.png" for i in range(COUNT)])
    p0 = "7.070912e+01 0 2.3e+01 0 0 7.070912e+01 1.6e+01 0 0 0 1 0"
    (root / "calib.txt").write_text(f"P0: {p0}\nP1: {p0}\nTr: {p0}\n")
    (root / "times.txt").write_text("".join(f"{i * 0.1036:.6e}\n" for i in range(COUNT)))
    poses = motion(COUNT, rate=10)
    table = np.concatenate(
        [so3.matrix_from_quaternion(poses.quaternions), np.ones((COUNT, 3, 1))], 2
    )
    (tmp_path / "dataset/poses").mkdir()
    np.savetxt(tmp_path / "dataset/poses/04.txt", table.reshape(COUNT, 12), fmt="%.6e")
    return root, poses


def test_kitti_takes_the_rectified_camera(kitti) -> None:
    root, poses = kitti
    sequence = read_sequence(root)
    assert sequence.truth.steps == pytest.approx(poses.steps, abs=1e-5)
    assert (sequence.camera.fx, sequence.camera.cx, sequence.camera.width) == (70.70912, 23.0, 48)
    assert sequence.truth.times[1] == pytest.approx(0.1036)
    assert [f.time for f in sequence.source.frames()] == pytest.approx(sequence.truth.times)


def test_kitti_needs_as_many_poses_as_pictures(kitti) -> None:
    root, _ = kitti
    (root / "image_0/000005.png").unlink()
    with pytest.raises(ValueError, match="5 pictures, 6 times, 6 poses"):
        read_sequence(root)


@pytest.mark.parametrize("header", ["", "qx,qy,qz,qw\n"])
@pytest.mark.parametrize("kind", ["pt", "npy", "png"])
def test_buss_is_turned_into_the_camera_rotation(header, kind, tmp_path) -> None:
    steps = motion(COUNT, rate=30).steps
    root = tmp_path / "sequence_3"
    root.mkdir()
    points = so3.quaternion_from_rotvec(so3.convert(steps, "buss"))
    rows = "".join(",".join(f"{v:.12f}" for v in q) + "\n" for q in points)
    (root / "rotations.csv").write_text(header + rows)
    flow = np.random.default_rng(0).normal(size=(2, 27, 48)).astype(np.float32)
    if kind == "png":
        pictures(root / "frames", [f"{i}.png" for i in range(COUNT)])
    for i in range(COUNT - 1) if kind != "png" else ():
        if kind == "npy":
            np.save(root / f"{i}.npy", flow)
        else:
            torch = pytest.importorskip("torch")
            torch.save(torch.from_numpy(flow)[None], root / f"{i}.pt")
    sequence = read_sequence(root)
    assert sequence.truth.steps == pytest.approx(steps, abs=1e-9)
    assert sequence.camera.fx == pytest.approx(1655 / 1920 * 48)
    if kind != "png":
        assert len(sequence.flows) == COUNT - 1
        assert np.array_equal(sequence.flow(2), np.moveaxis(flow, 0, -1))
    else:
        assert sequence.source.count == COUNT


@pytest.mark.parametrize(
    ("table", "flows", "message"),
    [
        ("0,0,0,1\n" * 3, 2, "2 flows but 3 rotations"),
        ("0,0,0,2\n" * 2, 2, "unit quaternions"),
        ("0,0,1\n" * 2, 2, "3 numbers, expected four"),
        ("0,0,0,1\n0,0,0,x\n", 2, "not a number"),
        ("", 2, "holds no rotation"),
    ],
)
def test_buss_says_what_is_wrong(table, flows, message, tmp_path) -> None:
    (tmp_path / "rotations.csv").write_text(table)
    for i in range(flows):
        np.save(tmp_path / f"{i}.npy", np.zeros((27, 48, 2), np.float32))
    with pytest.raises(ValueError, match=message):
        read_sequence(tmp_path)


def test_csv_folder_and_video(clip, write_video, tmp_path) -> None:
    folder = read_sequence(clip)
    assert (folder.camera.fx, folder.camera.cx) == (210.0, 119.5)
    frames = [f.image for f in folder.source.frames()]
    video = write_video(tmp_path / "turn.avi", frames)
    write_csv(folder.truth, tmp_path / "turn_gt.csv")
    beside = read_sequence(video, camera=folder.camera)
    assert beside.truth.steps == pytest.approx(folder.truth.steps, abs=1e-9)
    with pytest.raises(FileNotFoundError, match="no calibration beside"):
        read_sequence(video)


def test_csv_of_other_length_is_refused(clip, write_video, tmp_path) -> None:
    folder = read_sequence(clip)
    frames = [f.image for f in folder.source.frames()][:-2]
    video = write_video(tmp_path / "turn.avi", frames)
    write_csv(folder.truth, tmp_path / "turn_gt.csv")
    with pytest.raises(ValueError, match=r"has 10 frames, but .* has 12 rows"):
        read_sequence(video, camera=folder.camera)


@pytest.mark.shared_data
def test_shared_layouts_are_read(shared_data) -> None:
    folder = shared_data("rotation/euroc_v101_micro")
    camera = Camera(229.0, 229.0, 187.5, 119.5, 376, 240)
    sequence = read_sequence(folder, camera=camera)
    assert len(sequence.truth) == sequence.source.count == 95
    assert sequence.truth.times[1] == pytest.approx(0.05)
    video = read_sequence(shared_data("rotation/semi_vtest_easy.mp4"), camera=SMALL)
    assert len(video.truth) == 150
    assert video.truth.times[1] == pytest.approx(0.04)


FORMATS = ["buss", "csv", "euroc", "kitti", "tum", "tumvi"]


def test_every_format_is_registered() -> None:
    assert SEQUENCES.names() == FORMATS


def test_unknown_layouts_and_names_are_explained(tmp_path) -> None:
    with pytest.raises(ValueError, match="no sequence of a known format"):
        detect_format(tmp_path)
    with pytest.raises(ValueError, match="Did you mean 'euroc'"):
        read_sequence(tmp_path, format="euroq")
    with pytest.raises(FileNotFoundError, match="no such sequence"):
        read_sequence(tmp_path / "none")


@pytest.mark.parametrize("name", ["tum", "euroc", "tumvi", "kitti", "buss", "csv"])
def test_missing_parts_are_named(name, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="is missing"):
        read_sequence(tmp_path, format=name)


def test_pictures_outside_the_truth_are_an_error(tum) -> None:
    root, poses = tum
    late = Trajectory(poses.frames, poses.times + 100, poses.quaternions)
    write_tum(late, root / "groundtruth.txt")
    with pytest.raises(ValueError, match="fewer than two pictures lie within"):
        read_sequence(root)


def test_flows_of_other_kinds_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="cannot read a flow"):
        read_flow(tmp_path / "a.txt")
    np.save(tmp_path / "a.npy", np.zeros((4, 5)))
    with pytest.raises(ValueError, match=r"expected a flow \(H, W, 2\)"):
        read_flow(tmp_path / "a.npy")
    cv2.writeOpticalFlow(str(tmp_path / "a.flo"), np.ones((4, 5, 2), np.float32))
    assert read_flow(tmp_path / "a.flo").shape == (4, 5, 2)
