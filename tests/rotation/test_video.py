from pathlib import Path

import cv2
import numpy as np
import pytest

from visionlab.rotation.video import ImageFolder, LiveStream, VideoFile, natural_order, open_source


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (48, 64)).astype(np.uint8) for _ in range(12)]


@pytest.fixture(scope="module")
def video(pictures, tmp_path_factory, write_video) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "a.avi", pictures)


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("folder")
    for i, picture in enumerate(pictures):
        cv2.imwrite(str(root / f"f{i}.png"), picture)
    (root / "notes.txt").write_text("no picture")
    return root


def test_video_gives_each_frame_once_with_its_time(video, pictures) -> None:
    frames = list(open_source(video).frames())
    assert [f.index for f in frames] == list(range(12))
    assert [f.time for f in frames] == pytest.approx(np.arange(12) / 25)
    worst = max(np.abs(f.image.astype(int) - p).max() for f, p in zip(frames, pictures))
    assert worst <= 2  # colour conversion


def test_folder_is_in_natural_order(folder, pictures) -> None:
    source = open_source(folder, fps=10)
    frames = list(source.frames())
    assert source.count == 12
    assert all(np.array_equal(f.image, p) for f, p in zip(frames, pictures))
    assert frames[3].time == pytest.approx(0.3)
    names = sorted((Path(f"f{i}.png") for i in (10, 9, 2)), key=natural_order)
    assert [n.name for n in names] == ["f2.png", "f9.png", "f10.png"]


@pytest.mark.parametrize("kind", ["video", "folder"])
def test_range_and_restart(kind, request) -> None:
    source = open_source(request.getfixturevalue(kind), stop=9)
    whole = list(source.frames())
    part = list(source.frames(start=4))
    assert [f.index for f in part] == [4, 5, 6, 7, 8]
    assert [f.time for f in part] == pytest.approx([f.time for f in whole[4:]])
    assert all(np.array_equal(a.image, b.image) for a, b in zip(part, whole[4:]))


def element(identity: str, payload: bytes) -> bytes:
    """An EBML element with an eight-byte length."""
    size = (0x0100000000000000 | len(payload)).to_bytes(8, "big")
    return bytes.fromhex(identity) + size + payload


def number(identity: str, value: int) -> bytes:
    return element(identity, value.to_bytes(8, "big"))


def write_matroska(path: Path, frames: list[np.ndarray], milliseconds: list[int]) -> None:
    """Motion JPEG in a minimal Matroska file, each frame with a time of its own."""
    height, width = frames[0].shape
    head = element("1A45DFA3", element("4282", b"matroska") + number("4287", 4) + number("4285", 2))
    names = element("4D80", b"test") + element("5741", b"test")
    info = element("1549A966", number("2AD7B1", 1_000_000) + names)
    video = element("E0", number("B0", width) + number("BA", height))
    kind = number("D7", 1) + number("73C5", 1) + number("83", 1) + element("86", b"V_MJPEG")
    tracks = element("1654AE6B", element("AE", kind + video))
    blocks = b"".join(
        element(
            "A3", b"\x81" + time.to_bytes(2, "big") + b"\x80" + cv2.imencode(".jpg", f)[1].tobytes()
        )
        for f, time in zip(frames, milliseconds)
    )
    cluster = element("1F43B675", number("E7", 0) + blocks)
    path.write_bytes(head + element("18538067", info + tracks + cluster))


def test_times_of_a_variable_rate_are_kept(pictures, tmp_path) -> None:
    clock = np.cumsum([0, 40, 40, 120, 40, 33, 33, 500, 40, 40, 40, 40]).tolist()
    write_matroska(tmp_path / "variable.mkv", pictures, clock)
    source = open_source(tmp_path / "variable.mkv")
    assert [f.time for f in source.frames()] == pytest.approx(np.array(clock) / 1000)
    assert [f.time for f in source.frames(start=5)] == pytest.approx(np.array(clock[5:]) / 1000)
    assert source.count is None  # this file does not say
    assert not source.truncated


def test_a_clock_that_stands_still_is_said(video, caplog) -> None:
    source = VideoFile(video)
    assert source._time(0, last=3.0) == pytest.approx(3.04)
    assert "no time of its own" in caplog.text


def test_given_rate_overrides_the_clock(video) -> None:
    assert [f.time for f in open_source(video, fps=50).frames()][2] == pytest.approx(0.04)


def test_colour_on_request(video) -> None:
    assert next(open_source(video).frames(colour=True)).image.shape == (48, 64, 3)


def test_a_stream_numbers_what_arrives(video) -> None:
    stream = LiveStream(str(video), stop=5)
    frames = list(stream.frames())
    assert [f.index for f in frames] == [0, 1, 2, 3, 4]
    assert np.all(np.diff([f.time for f in frames]) > 0)
    with pytest.raises(ValueError, match="cannot be taken up again"):
        next(LiveStream(str(video)).frames(start=3))


def test_a_file_cut_short_is_noticed(video, tmp_path) -> None:
    whole = VideoFile(video)
    list(whole.frames())
    assert not whole.truncated
    data = video.read_bytes()
    short = tmp_path / "short.avi"
    short.write_bytes(data[: len(data) // 2])
    source = VideoFile(short)
    source.declared = 12  # an index at the end of the file would have told
    assert 0 < len(list(source.frames())) < 10
    assert source.truncated


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: open_source(p / "none.mp4"), FileNotFoundError, "no such video or folder"),
        (lambda p: open_source(p / "bad.mp4"), ValueError, "cannot read .* as a video"),
        (
            lambda p: open_source("http://127.0.0.1:9/no.mp4"),
            ConnectionError,
            "cannot open the stream http://127.0.0.1:9/no.mp4: nothing answers",
        ),
        (lambda p: open_source(p / "empty"), ValueError, "no picture"),
        (lambda p: open_source(p, fps=-1), ValueError, "fps must be positive"),
        (lambda p: list(ImageFolder(p / "mixed").frames()), ValueError, "all must be of one size"),
        (
            lambda p: list(ImageFolder(p / "damaged").frames()),
            ValueError,
            "cannot read the picture",
        ),
        (lambda p: ImageFolder(p / "mixed", times=[0.0]), ValueError, "2 pictures .* but 1 times"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_bad_sources_get_one_sentence(make, error, message, tmp_path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"not a video at all")
    for name in ("empty", "mixed", "damaged"):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / "mixed/a.png"), np.zeros((8, 8), np.uint8))
    cv2.imwrite(str(tmp_path / "mixed/b.png"), np.zeros((8, 9), np.uint8))
    cv2.imwrite(str(tmp_path / "damaged/a.png"), np.zeros((8, 8), np.uint8))
    (tmp_path / "damaged/b.png").write_bytes(b"\x89PNG but no more")
    with pytest.raises(error, match=message):
        make(tmp_path)
