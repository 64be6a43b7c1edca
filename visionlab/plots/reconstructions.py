"""What a masked autoencoder predicts: image, what it saw, what it made of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visionlab.masking.reconstruction import Reconstruction
from visionlab.plots.saving import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NORM_PIX = (
    "prediction: mean and contrast of each hidden patch are taken from the true one (norm-pix loss)"
)


def plot_reconstruction(
    reconstruction: Reconstruction,
    path: str | Path | None = None,
    *,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    count: int = 8,
) -> "Figure":
    """Three rows: image, visible patches, prediction among the visible patches.

    Args:
        reconstruction: from ``MaskedAutoencoder.reconstruct``.
        path: file to write; the pictures are saved beside it as arrays in [0, 1].
        mean: of the normalisation, per channel or one for all.
        std: likewise.
        count: pictures at most.
    """
    from matplotlib.figure import Figure

    rows = {
        name: pictures[:count].permute(0, 2, 3, 1).cpu().numpy()
        for name, pictures in zip(
            ("image", "visible", "prediction"),
            reconstruction.viewable([float(m) for m in mean], [float(s) for s in std]),
        )
    }
    number, height, width, channels = rows["image"].shape
    size = (1.5 * number * max(width / height, 0.6), 1.55 * 3 + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(3, number, squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items()):
        for axis, picture in zip(line, pictures):
            axis.imshow(picture if channels == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(name)
    if reconstruction.uses_target_statistics:
        figure.supxlabel(_NORM_PIX, fontsize=8, wrap=True)
    if path is not None:
        save_figure(figure, path, rows)
    return figure
