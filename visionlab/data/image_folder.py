"""Image folders in ImageNet's layout: one folder per class."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder as TorchvisionImageFolder

from visionlab.data.decoding import UNREADABLE, decode_rgb
from visionlab.data.loading import DamagedDataError, UnreadableSampleError


class ImageFolder(Dataset[Any]):
    """``root/CLASS/*.jpg`` (or png, webp, ...): uint8 RGB images with the class index.

    Args:
        root: the folder.
        transform: function of a uint8 (3, H, W) tensor that gives images of one size.
        labelled: whether classes matter. True refuses a folder with a single class.

    Raises:
        FileNotFoundError: the folder is missing or holds no image.
        ValueError: ``labelled`` and only one class.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        transform: Callable[[Tensor], Tensor] | None = None,
        labelled: bool = True,
    ) -> None:
        if not Path(root).is_dir():
            raise FileNotFoundError(f"no folder {root}; expected one sub-folder per class in it")
        try:
            folder = TorchvisionImageFolder(str(root))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{root} holds no images in class folders; expected {root}/CLASS/IMAGE.jpg"
            ) from error
        if labelled and len(folder.classes) < 2:
            raise ValueError(
                f"{root} holds one class ({folder.classes[0]}); a classifier needs two. Give the "
                "folder above, or labelled=False for pre-training without labels"
            )
        self.classes = folder.classes
        self.samples = folder.samples
        self.transform = transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, label = self.samples[index]
        try:
            image = decode_rgb(Path(path).read_bytes())
        except FileNotFoundError as error:
            raise DamagedDataError(
                f"{path} was there when the run started and is gone; put it back and start the "
                "same command again"
            ) from error
        except UNREADABLE as error:
            raise UnreadableSampleError(str(path), error) from error
        if self.transform is not None:
            image = self.transform(image)
        return {"image": image, "label": torch.tensor(label)}
