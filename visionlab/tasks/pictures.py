"""Pictures that a masked pre-training run leaves behind: reconstructions and masks."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import TensorBoardLogger

from visionlab.masking.autoencoder import MaskedAutoencoder
from visionlab.masking.reconstruction import Reconstruction
from visionlab.tasks.sharding import is_sharded


class PictureOfReconstruction:
    """Draws reconstructions every so many epochs, into the run folder and TensorBoard.

    Args:
        every_epochs: 0 draws none.
        count: number of images.
    """

    def __init__(self, every_epochs: int, count: int = 8) -> None:
        self.every_epochs, self.count = every_epochs, count

    def draw(self, task: Any) -> None:
        """Draw if it is time."""
        epoch = task.current_epoch + 1
        if not self.every_epochs or epoch % self.every_epochs:
            return
        if not task.trainer.is_global_zero:
            if is_sharded(task.model):  # rank 0 needs this rank's part of the weights
                _reconstruction(task, task.trainer.datamodule, self.count)
            return
        path = task.output / "pictures" / f"reconstruction_{epoch:04d}.png"
        figure = _draw_reconstruction(task, task.trainer.datamodule, path, self.count)
        for logger in task.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure("reconstruction", figure, task.global_step)


def _draw_reconstruction(task: Any, data: Any, path: Path, count: int = 8) -> Any:
    """Reconstruction panel of the first test (or validation, or training) images."""
    from visionlab.plots.reconstructions import plot_reconstruction

    reconstruction = _reconstruction(task, data, count)
    path.parent.mkdir(parents=True, exist_ok=True)
    return plot_reconstruction(reconstruction, path, mean=data.mean, std=data.std)


def _reconstruction(task: Any, data: Any, count: int) -> Reconstruction:
    split = next(s for s in ("test", "val", "train") if s in data.datasets)
    batch = next(iter(data.loader(split)))
    images = data.normalise(batch["image"][:count].to(task.device))
    model: MaskedAutoencoder = task.model
    return model.reconstruct(images, key=(task.seed, 1))


class MaskPictures:
    """Evaluation after masked pre-training: masks of the run's strategy, and reconstructions."""

    title = "Pictures"

    def __init__(self, *, count: int = 8) -> None:
        self.count = count

    def run(self, task: Any, data: Any, output: Path) -> list[dict[str, Any]]:
        """Draw into ``output/pictures``."""
        from visionlab.plots.masks import plot_masks

        folder = output / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            _draw_reconstruction(task, data, folder / "reconstruction.png", self.count)
        plot_masks({"mask": task.model.mask}, folder / "masks.png")
        return [{"picture": str(p)} for p in sorted(folder.glob("*.png"))]
