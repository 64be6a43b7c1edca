import cv2
import numpy as np
import pytest

from visionlab.rotation.camera import Camera

GRID = np.stack(np.meshgrid(np.arange(0, 481, 20.0), np.arange(0, 271, 15.0)), -1).reshape(-1, 2)
PINHOLE = Camera(400.0, 410.0, 233.2, 141.7, 481, 271)
RADTAN = Camera(400.0, 410.0, 233.2, 141.7, 481, 271, (-0.28, 0.07, 2e-4, 2e-5, 0.01))
RATIONAL = Camera(
    400.0, 410.0, 233.2, 141.7, 481, 271, (0.1, 0.02, 1e-3, -1e-3, 0.01, 0.2, 0.03, 0.01)
)
FISHEYE = Camera(190.0, 191.0, 240.1, 133.0, 481, 271, (0.02, -0.007, 0.003, -0.0004), "fisheye")
FOV = Camera(300.0, 300.0, 240.0, 135.0, 481, 271, (0.9,), "fov")


def test_agrees_with_opencv():
    for camera in (PINHOLE, RADTAN, RATIONAL, FISHEYE):
        matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
        coefficients = np.array(camera.distortion or [0.0] * 4)
        rays = camera.bearings(GRID)
        if camera.model == "fisheye":
            pixels, _ = cv2.fisheye.projectPoints(
                rays[None], np.zeros(3), np.zeros(3), matrix, coefficients
            )
        else:
            pixels, _ = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), matrix, coefficients)
        np.testing.assert_allclose(pixels.reshape(-1, 2), GRID, atol=1e-7)
        np.testing.assert_allclose(camera.project(rays), GRID, atol=1e-8)


@pytest.mark.parametrize("camera", [PINHOLE, RADTAN, RATIONAL, FISHEYE, FOV])
def test_round_trips(camera):
    rays = camera.bearings(GRID)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1, atol=1e-14)
    np.testing.assert_allclose(camera.project(rays * 7), GRID, atol=1e-8)
    np.testing.assert_allclose(camera.normalise(GRID), rays[:, :2] / rays[:, 2:], atol=1e-9)


def test_centre_and_scale():
    camera = Camera.from_fov(90, 480, 270)
    assert (camera.cx, camera.cy, camera.fx) == (239.5, 134.5, pytest.approx(240))
    assert Camera.from_fov(90, 480, 270, axis="vertical").fx == pytest.approx(135)
    assert Camera.from_fov(90, 480, 360, axis="diagonal").fx == pytest.approx(300)
    half = camera.scaled(240, 135)
    assert (half.cx, half.cy, half.fx) == (119.5, 67.0, pytest.approx(120))


def test_rays_behind_a_fisheye_have_bearings_but_no_plane():
    camera = Camera(100.0, 100.0, 200.0, 200.0, 401, 401, (0.0, 0.0, 0.0, 0.0), "fisheye")
    pixel = [[200 + 100 * 1.8, 200.0]]  # equidistant: 1.8 rad from the axis
    np.testing.assert_allclose(camera.bearings(pixel), [[np.sin(1.8), 0, np.cos(1.8)]], atol=1e-12)
    assert np.isnan(camera.normalise(pixel)).all()
    assert np.isnan(PINHOLE.project([[0.0, 0.0, -1.0]])).all()


def test_unreachable_pixels_are_nan():
    folded = Camera(100.0, 100.0, 200.0, 200.0, 401, 401, (-0.4, 0.0, 0.0, 0.0))
    assert np.isnan(folded.bearings([[400.0, 400.0]])).all()
    assert np.isfinite(folded.bearings([[230.0, 210.0]])).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (0.0, 1.0, 0, 0, 4, 4),
            r"camera fx must be a positive number of pixels, got 0.0; take it",
        ),
        ((1.0, -5.0, 0, 0, 4, 4), r"camera fy must be a positive number"),
        ((1.0, float("nan"), 0, 0, 4, 4), r"camera fy must be a positive number"),
        ((1.0, 1.0, float("inf"), 0, 4, 4), r"camera cx must be a finite number"),
        ((1.0, 1.0, 0, 0, 0, 4), r"camera width must be a whole number of pixels >= 2, got 0"),
        ((1.0, 1.0, 0, 0, 4, 4, (1.0, 2.0)), r"'brown_conrady' takes 4 or 5 or 8 .* got 2"),
        ((1.0, 1.0, 0, 0, 4, 4, (0.0,) * 5, "fisheye"), r"'fisheye' takes 4 .* got 5"),
        ((1.0, 1.0, 0, 0, 4, 4, None, "fish"), r"no camera model 'fish'. Did you mean 'fisheye'"),
        ((1.0, 1.0, 0, 0, 4, 4, (np.nan,) * 4), r"distortion coefficients must be finite"),
    ],
)
def test_bad_cameras(arguments, message):
    with pytest.raises(ValueError, match=message):
        Camera(*arguments)


def test_a_focal_length_is_a_number():
    with pytest.raises(TypeError, match="camera fx must be a number of pixels, got '500'"):
        Camera("500", 500, 0, 0, 4, 4)


def test_bad_fields_of_view():
    with pytest.raises(ValueError, match="between 0 and 180 degrees, got '60'"):
        Camera.from_fov("60", 480, 270)
    with pytest.raises(ValueError, match="between 0 and 180 degrees, got 180"):
        Camera.from_fov(180, 480, 270)
    with pytest.raises(ValueError, match=r"no field-of-view axis 'diag'. Did you mean 'diagonal'"):
        Camera.from_fov(60, 480, 270, axis="diag")
