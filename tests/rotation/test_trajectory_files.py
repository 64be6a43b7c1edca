import json

import numpy as np
import pytest

from visionlab.rotation import so3, trajectory_files
from visionlab.rotation.trajectory import Trajectory
from visionlab.rotation.trajectory_files import atomic, read_trajectory


@pytest.fixture
def chain() -> Trajectory:
    rng = np.random.default_rng(1)
    made = Trajectory.from_steps(rng.normal(size=(9, 3)) * 0.03, np.arange(10) / 25)
    columns = {"status": ["start"] + ["ok"] * 9, "inlier_ratio": [np.nan, *rng.uniform(size=9)]}
    return Trajectory(made.frames + 4, made.times, made.quaternions, columns)


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_our_own_formats_come_back_whole(name, chain, tmp_path) -> None:
    path = tmp_path / f"a.{name}"
    trajectory_files.writer(name)(chain, path)
    back = read_trajectory(path)
    assert back.frames.tolist() == chain.frames.tolist()
    assert back.times == pytest.approx(chain.times, abs=1e-9)
    assert back.steps == pytest.approx(chain.steps, abs=1e-10)
    assert back.columns["status"] == chain.columns["status"]
    assert np.isnan(back.columns["inlier_ratio"][0])


def test_tum_comes_back(chain, tmp_path) -> None:
    trajectory_files.write_tum(chain, tmp_path / "a.tum")
    back = read_trajectory(tmp_path / "a.tum")
    assert back.steps == pytest.approx(chain.steps, abs=1e-10)
    assert back.times == pytest.approx(chain.times)


def test_kitti_poses_are_read(chain, tmp_path) -> None:
    matrices = so3.matrix_from_quaternion(chain.quaternions)
    table = np.concatenate([matrices, np.ones((10, 3, 1))], 2).reshape(10, 12)
    np.savetxt(tmp_path / "00.txt", table)
    assert read_trajectory(tmp_path / "00.txt").steps == pytest.approx(chain.steps, abs=1e-10)


def test_jsonl_is_strict_json(chain, tmp_path) -> None:
    trajectory_files.write_jsonl(chain, tmp_path / "a.jsonl")
    first = json.loads(
        (tmp_path / "a.jsonl").read_text().splitlines()[0], parse_constant=pytest.fail
    )
    assert first["inlier_ratio"] is None
    assert first["frame"] == 4


def gyroflow_orientation(orientation: str, sample: np.ndarray) -> np.ndarray:
    """Gyroflow's reading of an orientation string: 'Y' takes the input's y, 'y' its negative."""
    axis = {"x": 0, "y": 1, "z": 2}
    return np.array([sample[axis[c.lower()]] * (-1 if c.islower() else 1) for c in orientation])


def test_gyro_log_is_what_gyroflow_integrates(chain, tmp_path) -> None:
    """Gyroflow integrates (-g_y, g_x, g_z) in axes x right, y up, z back."""
    trajectory_files.write_gcsv(chain, tmp_path / "clip.gcsv", video="folder/clip.mp4")
    lines = (tmp_path / "clip.gcsv").read_text().splitlines()
    header = dict(line.split(",", 1) for line in lines[1 : lines.index("t,gx,gy,gz")])
    assert lines[0] == "GYROFLOW IMU LOG"
    assert header["videofilename"] == "clip.mp4"
    table = np.loadtxt(lines[lines.index("t,gx,gy,gz") + 1 :], delimiter=",")
    assert table[:, 0] == pytest.approx((chain.times[1:] + chain.times[:-1]) / 2, abs=1e-6)
    samples = [gyroflow_orientation(header["orientation"], row) for row in table[:, 1:]]
    turned = np.array([[-g[1], g[0], g[2]] for g in samples]) * float(header["gscale"])
    assert turned == pytest.approx(so3.convert(chain.rates, "opengl"), abs=1e-6)


def test_no_gyro_sample_across_a_cut(tmp_path) -> None:
    steps = np.full((3, 3), 0.01)
    steps[1] = np.nan
    trajectory_files.write_gcsv(Trajectory.from_steps(steps, np.arange(4)), tmp_path / "a.gcsv")
    assert len((tmp_path / "a.gcsv").read_text().split("t,gx,gy,gz\n")[1].splitlines()) == 2


def test_a_file_appears_only_when_complete(tmp_path) -> None:
    def fail() -> None:
        with atomic(tmp_path / "a.csv") as file:
            file.write("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no such trajectory file"):
        read_trajectory(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rows"),
        ("1 2 3\n", "its first row has 3 fields"),
        ("frame,qx,qy,qz\n0,0,0,0\n", "no column qw"),
        ("frame,qx,qy,qz,qw\n0,0,0,0,3\n", "quaternion 0 has norm 3"),
        ("frame,qx,qy,qz,qw\n0,0,0,0,one\n", "could not convert"),
        ("1 0 0 0 0 2 0 0 0 0 1 0\n", "no rotation matrices"),
    ],
)
def test_bad_files_get_one_sentence_with_their_name(text, message, tmp_path) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_trajectory(tmp_path / "bad.csv")
    assert "bad.csv" in str(error.value)


def test_unknown_format_is_corrected() -> None:
    with pytest.raises(ValueError, match="Did you mean 'jsonl'"):
        trajectory_files.writer("json")
