"""TUM RGB-D: poses at the times of the pictures."""

import numpy as np
import pytest

from tests.rotation.sequences.recordings import COUNT, SMALL
from visionlab.rotation.sequences import read_sequence


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
