import numpy as np
import pytest

from visionlab.rotation.continuity import histogram_overlap, is_cut, is_duplicate, sample
from visionlab.rotation.flow import DenseInverseSearch, LucasKanade, Tracks


@pytest.fixture
def views(texture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A frame, the same scene a little later, another scene of other brightness."""
    other = 255 - np.flipud(texture).T[:270, :480] // 2
    return texture[:270, :480], texture[3:273, 5:485], np.ascontiguousarray(other)


@pytest.mark.parametrize("method", [LucasKanade(), DenseInverseSearch("ultrafast")])
def test_a_cut_is_told_from_motion(method, views) -> None:
    first, later, other = views
    assert not is_cut(first, later, method(first, later))
    assert is_cut(first, other, method(first, other))


def test_a_fade_to_black_is_no_cut(views) -> None:
    black = np.zeros_like(views[0])
    assert not is_cut(views[0], black, LucasKanade()(views[0], black))


def test_duplicates_may_differ_by_what_coding_changes(views) -> None:
    frame = np.clip(views[0], 5, 250)
    noise = np.random.default_rng(0).integers(-2, 3, frame.shape)
    assert is_duplicate(frame, (frame + noise).astype(np.uint8))
    changed = frame.copy()
    changed[100:110, 100:110] += 4
    assert not is_duplicate(frame, changed)


def test_overlap_of_histograms() -> None:
    dark, bright = np.zeros((8, 8), np.uint8), np.full((8, 8), 200, np.uint8)
    assert histogram_overlap(dark, dark) == pytest.approx(1)
    assert histogram_overlap(dark, bright) == 0


def test_sampling_a_dense_flow_takes_the_grid() -> None:
    flow = np.dstack(np.meshgrid(np.arange(60.0), np.arange(30.0))).astype(np.float32)
    tracks = sample(flow, step=10)
    assert tracks.points1 == pytest.approx(2 * tracks.points0)
    assert sample(Tracks(*tracks)) is not None
