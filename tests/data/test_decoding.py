"""Pictures of any format and colour model as uint8 RGB; damaged ones are refused."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from visionlab.data.decoding import UNREADABLE, decode_rgb


def picture(width=61, height=45):
    """Smooth colours and noise."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3))
    return Image.fromarray(
        (np.stack([3 * x, 4 * y, x + y], 2) + noise).clip(0, 255).astype(np.uint8)
    )


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_pixels(kind):
    image = decode_rgb(encoded(picture(), kind))
    assert image.dtype == torch.uint8
    assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(picture()))


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"), ("WEBP", "RGB")],
)
def test_other_colour_models(kind, mode):
    data = encoded(picture().convert(mode), kind)
    with Image.open(io.BytesIO(data)) as file:
        expected = np.asarray(file.convert("RGB"))
    assert np.array_equal(decode_rgb(data).permute(1, 2, 0).numpy(), expected)


def test_gray_of_16_bit_is_refused():
    deep = Image.fromarray(np.full((4, 6), 4096, np.uint16))
    with pytest.raises(ValueError, match="gray of mode I;16, not 8 bits a channel"):
        decode_rgb(encoded(deep, "PNG"))


def test_damaged_pictures_are_refused():
    data = encoded(picture())
    for broken in (b"", b"no picture", data[: len(data) // 2], data[:40], data[:3]):
        with pytest.raises(UNREADABLE):
            decode_rgb(broken)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of odd TIFF tags
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
def test_fuzzed_pictures_decode_or_are_refused(kind):
    rng = np.random.default_rng(0)
    good = encoded(picture(), kind)
    for _ in range(40):
        data = bytearray(good)
        for _ in range(3):
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        try:
            image = decode_rgb(bytes(data))
        except UNREADABLE:
            continue
        assert image.dtype == torch.uint8
        assert image.shape[0] == 3


def test_exif_does_not_turn_a_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_rgb(encoded(picture(), exif=exif)).shape == (3, 45, 61)


def test_draft_decodes_large_jpegs_at_a_fraction():
    data = encoded(Image.new("RGB", (640, 480), (90, 90, 90)))
    assert decode_rgb(data).shape == (3, 480, 640)
    assert decode_rgb(data, 224).shape == (3, 240, 320)
    assert decode_rgb(data, 256).shape == (3, 480, 640)  # a half would be too small
    assert int(decode_rgb(data, 224).float().mean()) == 90
    assert decode_rgb(encoded(picture(), "PNG"), 8).shape == (3, 45, 61)
