"""Pictures from the bytes of a file: uint8 RGB as stored, whatever the format.

Pillow decodes. torchvision's decoder gives the same pixels (the same library below) without one of
Pillow's copies, but torchvision 0.29 announces its removal; OpenCV's passes truncated JPEGs on.
"""

import io
import struct
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:  # packing needs the list below, and no torch
    from torch import Tensor

# what Pillow raises for pictures that are none (an unidentified one is an OSError)
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


def decode_rgb(data: bytes, draft: int | None = None) -> "Tensor":
    """(3, H, W) uint8 from the bytes of a picture; no EXIF rotation, no alpha channel.

    Args:
        data: the file.
        draft: shorter side in px that a JPEG must keep when it is decoded at 1/2, 1/4 or 1/8 of its
            size (libjpeg scales within the inverse DCT); full size if None.

    Raises:
        one of `UNREADABLE`: no picture, a damaged one, or one of more than 8 bits a channel.
    """
    from torchvision.transforms.v2 import functional as F

    with Image.open(io.BytesIO(data)) as file:
        if file.mode[0] in "IF":  # Pillow would cut its values off at 255
            raise ValueError(f"it holds gray of mode {file.mode}, not 8 bits a channel")
        if draft is not None:
            scale = draft / min(file.size)
            file.draft("RGB", (round(file.width * scale), round(file.height * scale)))
        return F.pil_to_tensor(file if file.mode == "RGB" else file.convert("RGB"))
