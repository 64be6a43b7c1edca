import pytest

from visionlab.rotation.calibration import READERS, read_camera
from visionlab.rotation.camera import Camera

OPENCV = """%YAML:1.0
---
image_width: 640
image_height: 480
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 500., 0., 320.5, 0., 501., 240.5, 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 1
   cols: 5
   dt: d
   data: [ -0.3, 0.1, 0.001, 0.002, 0. ]
"""
COLMAP = """# Camera list with one line of data per camera:
#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]
1 SIMPLE_RADIAL 640 480 500 320 240 -0.1
2 PINHOLE 640 480 500 501 320 240
3 OPENCV_FISHEYE 640 480 300 301 320 240 0.1 0.01 0.001 0.0001
4 FULL_OPENCV 640 480 500 501 320 240 .1 .2 .001 .002 .3 .4 .5 .6
5 FOV 640 480 500 501 320 240 0.9
"""
KITTI = """P0: 7.18856e+02 0 6.071928e+02 0 0 7.18856e+02 1.852157e+02 0 0 0 1 0
P1: 7.2e+02 0 6.0e+02 -3.8e+02 0 7.2e+02 1.85e+02 0 0 0 1 0
"""
KITTI_RAW = """calib_time: 09-Jan-2012 13:57:47
S_rect_00: 1.242000e+03 3.750000e+02
P_rect_00: 7.2e+02 0 6.1e+02 0 0 7.2e+02 1.7e+02 0 0 0 1 0
"""
EUROC = """sensor_type: camera
rate_hz: 20
resolution: [752, 480]
camera_model: pinhole
intrinsics: [458.654, 457.296, 367.215, 248.375] #fu, fv, cu, cv
distortion_model: radial-tangential
distortion_coefficients: [-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05]
"""
KALIBR = """cam0:
  distortion_coeffs: [0.0034823894022493434, 0.0007150348452162257, -0.0020532361418706202,
    0.00020293673591811182]
  distortion_model: equidistant
  intrinsics: [190.97847715128717, 190.9733070521226, 254.93170605935475, 256.8974428996504]
  resolution: [512, 512]
cam1:
  distortion_coeffs: [0, 0, 0, 0]
  distortion_model: radtan
  intrinsics: [200.0, 201.0, 250.0, 251.0]
  resolution: [512, 512]
"""
TUM_MONO = """0.5 0.8 0.5 0.6 0.9
1280 1024
crop
640 480
"""


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_opencv(write):
    expected = Camera(500, 501, 320.5, 240.5, 640, 480, (-0.3, 0.1, 0.001, 0.002, 0.0))
    assert read_camera(write("a.yaml", OPENCV)) == expected
    assert Camera.from_file(write("a.yml", OPENCV)) == expected
    fisheye = OPENCV.replace("cols: 5", "cols: 4").replace("0.002, 0.", "0.002")
    camera = read_camera(write("b.yaml", fisheye + "distortion_model: fisheye\n"))
    assert camera.model == "fisheye"


def test_colmap_moves_the_centre_by_half_a_pixel(write):
    path = write("cameras.txt", COLMAP)
    assert read_camera(path) == Camera(500, 500, 319.5, 239.5, 640, 480, (-0.1, 0, 0, 0))
    assert read_camera(path, name="2") == Camera(500, 501, 319.5, 239.5, 640, 480)
    fisheye = read_camera(path, name="3")
    assert fisheye.model == "fisheye"
    assert fisheye.distortion == (0.1, 0.01, 0.001, 0.0001)
    assert read_camera(path, name="4").distortion == (0.1, 0.2, 0.001, 0.002, 0.3, 0.4, 0.5, 0.6)
    assert read_camera(path, name="5").model == "fov"


def test_kitti(write):
    path = write("calib.txt", KITTI)
    camera = read_camera(path, size=(1241, 376))
    assert (camera.fx, camera.cx, camera.width) == (718.856, 607.1928, 1241)
    assert read_camera(path, size=(1241, 376), name="P1").fx == 720
    raw = read_camera(write("calib_cam_to_cam.txt", KITTI_RAW))
    assert (raw.width, raw.height, raw.cy) == (1242, 375, 170)
    with pytest.raises(
        ValueError, match=r"does not hold the image size; pass size=\(width, height\)"
    ):
        read_camera(path)


def test_euroc_and_kalibr(write):
    camera = read_camera(write("sensor.yaml", EUROC))
    assert (camera.model, camera.width, camera.fy) == ("brown_conrady", 752, 457.296)
    path = write("camchain.yaml", KALIBR)
    assert read_camera(path).model == "fisheye"
    assert read_camera(path, name="cam1") == Camera(200, 201, 250, 251, 512, 512)


def test_tum(write, tmp_path):
    camera = read_camera(write("camera.txt", TUM_MONO))
    assert camera.model == "fov"
    assert (camera.fx, camera.cx, camera.cy) == (640, 639.5, pytest.approx(0.6 * 1024 - 0.5))
    rgbd = read_camera(tmp_path / "rgbd_dataset_freiburg1_desk")
    assert (rgbd.fx, rgbd.width, rgbd.model) == (517.3, 640, "brown_conrady")
    assert read_camera(tmp_path / "rgbd_dataset_freiburg3_walking").model == "pinhole"


def test_messages(write, tmp_path):
    with pytest.raises(FileNotFoundError, match="no calibration file at"):
        read_camera(tmp_path / "absent.yaml")
    with pytest.raises(FileNotFoundError, match="no calibration file at"):
        read_camera(tmp_path / "absent.txt", "colmap")
    with pytest.raises(ValueError, match=r"no calibration kind 'colmpa'. Did you mean 'colmap'"):
        read_camera(write("a.txt", COLMAP), "colmpa")
    with pytest.raises(ValueError, match=r"no COLMAP camera model 'SIMPEL_PINHOLE'. Did you mean"):
        read_camera(write("c.txt", "1 SIMPEL_PINHOLE 4 4 1 2 2"))
    with pytest.raises(ValueError, match=r"PINHOLE takes 4 parameters, got 3"):
        read_camera(write("d.txt", "1 PINHOLE 4 4 1 2 2"), "colmap")
    with pytest.raises(
        ValueError, match=r"is no complete opencv calibration: missing 'camera_matrix"
    ):
        read_camera(write("e.yaml", "%YAML:1.0\n---\nimage_width: 640\n"))
    with pytest.raises(ValueError, match=r"no distortion model 'radtn'. Did you mean 'radtan'"):
        read_camera(write("f.yaml", EUROC.replace("radial-tangential", "radtn")))
    with pytest.raises(ValueError, match="is no complete colmap calibration"):
        read_camera(write("g.txt", "# nothing\n"))


def test_every_reader_is_tested():
    assert set(READERS) == {"opencv", "colmap", "kitti", "euroc", "tum"}
