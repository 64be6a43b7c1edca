import cv2
import numpy as np
import pytest

from visionlab.rotation import FLOWS
from visionlab.rotation.continuity import sample
from visionlab.rotation.flow import DenseInverseSearch, LucasKanade, Raft, grid_points, grid_step

SHIFT = np.array([2.25, -1.5])


@pytest.fixture
def pair(texture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two frames, the second moved by SHIFT px."""
    move = np.array([[1, 0, SHIFT[0]], [0, 1, SHIFT[1]]])
    moved = cv2.warpAffine(texture, move, (640, 480), flags=cv2.INTER_CUBIC)
    return texture[100:370, 60:540].copy(), moved[100:370, 60:540].copy()


def test_grid_is_centred_half_a_step_from_the_border() -> None:
    points = grid_points(480, 270, 15)
    assert len(points) == 576
    assert points[0].tolist() == [7, 7]
    assert points[-1].tolist() == [472, 262]
    assert grid_step(480) == 15


@pytest.mark.parametrize("method", [LucasKanade(), DenseInverseSearch()], ids=["lk", "dis"])
def test_a_shift_is_found(method, pair) -> None:
    tracks = sample(method(*pair))
    kept = np.isfinite(tracks.points1).all(1)
    error = np.linalg.norm((tracks.points1 - tracks.points0)[kept] - SHIFT, axis=1)
    assert kept.mean() > 0.9
    assert np.median(error) < 0.08


def test_points_that_do_not_come_back_are_lost(pair) -> None:
    first, second = pair
    second = second.copy()
    second[:, :160] = np.random.default_rng(0).integers(0, 255, (270, 160))
    tracks = LucasKanade()(first, second)
    lost = np.isnan(tracks.points1).all(1)
    left = tracks.points0[:, 0] < 140
    assert lost[left].mean() > 0.8
    assert lost[tracks.points0[:, 0] > 200].mean() < 0.05


def test_large_motion_is_within_reach_of_the_pyramid(texture) -> None:
    moved = np.roll(texture, 30, axis=1)
    tracks = LucasKanade()(texture[100:370, 60:540], moved[100:370, 60:540])
    found = np.nanmedian(tracks.points1 - tracks.points0, axis=0)
    assert found == pytest.approx([30, 0], abs=0.05)


def test_batch_is_the_pairs_one_by_one(pair) -> None:
    first, second = pair
    for method in (LucasKanade(), DenseInverseSearch("ultrafast")):
        one, two = method.batch([first, second], [second, first])
        assert np.array_equal(np.asarray(one), np.asarray(method(first, second)), equal_nan=True)
        assert np.array_equal(np.asarray(two), np.asarray(method(second, first)), equal_nan=True)


def test_registry_builds_each_method() -> None:
    assert FLOWS.names() == ["dis", "lk", "raft"]
    assert FLOWS.get("dis")(preset="fast").preset == "fast"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LucasKanade(0), "step must be at least 1 px, got 0"),
        (lambda: LucasKanade(window=1), "window must be at least 3 px"),
        (lambda: LucasKanade(max_error=0), "max_error must be positive"),
        (lambda: DenseInverseSearch("slow"), "no DIS preset 'slow'"),
        (lambda: Raft(), "flow 'raft' needs weights"),
        (lambda: Raft("none.pth"), "no such weights file"),
        (lambda: FLOWS.get("rafte"), "Did you mean 'raft'"),
    ],
)
def test_bad_options_get_one_sentence(make, message) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((20, 30), np.float32), np.zeros((20, 30), np.float32), "uint8 frames"),
        (np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30, 3), np.uint8), r"grey \(H, W\)"),
        (np.zeros((20, 30), np.uint8), np.zeros((20, 31), np.uint8), "one size"),
    ],
)
@pytest.mark.parametrize("method", [LucasKanade(), DenseInverseSearch()], ids=["lk", "dis"])
def test_frames_are_checked(method, first, second, message) -> None:
    with pytest.raises(ValueError, match=message):
        method(first, second)


@pytest.fixture(scope="module")
def raft_weights(tmp_path_factory):
    import torch

    from visionlab.backbones import create_backbone

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("raft") / "raft_small.pth"
    torch.save(create_backbone("raft_small").state_dict(), path)
    return path


def test_raft_runs_from_a_local_file_at_any_size(raft_weights, texture) -> None:
    colour = cv2.cvtColor(texture[:100, :150], cv2.COLOR_GRAY2BGR)
    moved = np.roll(colour, 2, axis=1)
    raft = Raft(raft_weights, updates=2)
    flows = raft.batch([colour, colour], [moved, colour])
    assert flows.shape == (2, 100, 150, 2)
    assert np.isfinite(flows).all()
    assert raft(colour, moved) == pytest.approx(flows[0], abs=1e-3)


def test_raft_is_the_network_of_torchvision(raft_weights, texture) -> None:
    import torch
    from torchvision.models.optical_flow import raft_small

    net = raft_small(weights=None).eval()
    net.load_state_dict(torch.load(raft_weights, weights_only=True))
    colour = cv2.cvtColor(texture[:128, :136], cv2.COLOR_GRAY2BGR)
    moved = np.roll(colour, 2, axis=1)
    tensors = [
        torch.from_numpy(x[..., ::-1].copy()).permute(2, 0, 1)[None] for x in (colour, moved)
    ]
    with torch.inference_mode():
        wanted = net(*(t.float() / 127.5 - 1 for t in tensors), num_flow_updates=2)[-1]
    flow = Raft(raft_weights, updates=2)(colour, moved)
    assert flow == pytest.approx(wanted[0].permute(1, 2, 0).numpy(), abs=1e-4)


def test_raft_refuses_weights_of_another_network(tmp_path, texture) -> None:
    import torch

    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    colour = cv2.cvtColor(texture[:128, :128], cv2.COLOR_GRAY2BGR)
    with pytest.raises(Exception, match=r"missing|unexpected"):
        Raft(tmp_path / "other.pth")(colour, colour)


def test_a_gpu_that_is_not_there_is_named(raft_weights, texture, monkeypatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    colour = cv2.cvtColor(texture[:128, :128], cv2.COLOR_GRAY2BGR)
    with pytest.raises(ValueError, match="torch sees no CUDA GPU"):
        Raft(raft_weights, device="cuda")(colour, colour)
