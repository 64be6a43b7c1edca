import numpy as np
import pytest

from visionlab.rotation import so3
from visionlab.rotation.scenes import SCENARIOS, Scenario, make_scene, smooth_field


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_holds_what_it_promises(name):
    scenario = SCENARIOS[name]
    for index in range(3):
        scene = make_scene(name, index, seed=4)
        assert scene.flow.shape == (270, 480, 2)
        assert scene.flow.dtype == np.float32
        assert 0.2 * scenario.max_angle <= np.linalg.norm(scene.rotvec) <= scenario.max_angle
        assert scenario.movers <= 1 - scene.static.mean() < scenario.movers + 0.15
        assert scene.inverse_depth.mean() == pytest.approx(1)
        assert (scene.translation == 0).all() == (scenario.parallax == 0)


def test_static_flow_is_the_projection_of_moved_points():
    scene = make_scene(Scenario(0.05, 400.0, 2.0, 0.3), 3, seed=1, noise=0.0)
    y, x = 40, 300
    depth = 1 / scene.inverse_depth[y, x]
    point = depth * scene.camera.bearings([x, y]) / scene.camera.bearings([x, y])[2]
    seen = scene.camera.project(so3.exp(scene.rotvec).T @ (point - scene.translation))
    if scene.static[y, x]:
        np.testing.assert_allclose(scene.flow[y, x], seen - [x, y], atol=1e-4)
    # most static pixels carry no gross error, so their flow is that of a scene without movers
    calm = make_scene(Scenario(0.05, 400.0, 2.0, 0.0), 3, seed=1, noise=0.0)
    np.testing.assert_array_equal(scene.rotvec, calm.rotvec)
    same = np.abs(scene.flow - calm.flow).max(-1)[scene.static] < 1e-3
    assert same.mean() > 0.9


def test_parallax_has_the_promised_size():
    moving = make_scene(Scenario(0.0, 400.0, 3.0, 0.0), 0, seed=2, noise=0.0)
    even = np.hypot(*np.moveaxis(moving.flow, -1, 0)) / moving.inverse_depth
    assert np.median(even) == pytest.approx(3.0, rel=0.5)


def test_same_arguments_same_flow():
    first, again = (make_scene("S2", 5, seed=9).flow for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, make_scene("S2", 6, seed=9).flow)
    assert not np.array_equal(first, make_scene("S2", 5, seed=10).flow)


def test_room_has_nothing_far():
    room = make_scene("S3", 0, seed=1, depth="room")
    assert room.inverse_depth.min() > 0.15
    relief = make_scene("S3", 0, seed=1)
    assert relief.inverse_depth.min() < 0.05


def test_angle_can_be_chosen():
    assert np.linalg.norm(make_scene("S0", angle=0.2).rotvec) == pytest.approx(0.2)


def test_smooth_field_keeps_constants_and_corners():
    assert (smooth_field(np.full((3, 4), 2.0), 30, 40) == 2.0).all()
    field = smooth_field(np.arange(12.0).reshape(3, 4), 30, 40)
    assert (field[0, 0], field[-1, -1]) == (0, 11)


def test_messages():
    with pytest.raises(ValueError, match=r"no scenario 'S9'. Known: 'S0', 'S1'"):
        make_scene("S9")
    with pytest.raises(ValueError, match=r"no scene depth 'rom'. Did you mean 'room'"):
        make_scene("S0", depth="rom")
