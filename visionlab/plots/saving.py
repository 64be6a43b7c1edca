"""Writing figures: whole or not at all, with the plotted numbers beside them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(
    figure: "Figure", path: str | Path, data: Mapping[str, ArrayLike] | None = None
) -> None:
    """Write a figure, and its numbers as ``.npz`` under the same name.

    Args:
        figure: any matplotlib figure.
        path: picture file; its ending chooses the format, its folder is made if need be.
        data: arrays to save beside.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as part:
        figure.savefig(part, dpi=120)
    if data:
        arrays: dict[str, Any] = {name: np.asarray(values) for name, values in data.items()}
        with _replacing(path.with_suffix(".npz")) as part:
            np.savez_compressed(part, **arrays)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file of the same ending that takes the place of ``path`` on success."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
