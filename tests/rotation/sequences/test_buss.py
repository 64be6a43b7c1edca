"""BUSS: flows or pictures, rotations of the points turned into those of the camera."""

import numpy as np
import pytest

from tests.rotation.sequences.recordings import COUNT, motion, pictures
from visionlab.rotation import so3
from visionlab.rotation.sequences import read_sequence


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
