"""Masks by name."""

import inspect
from typing import Any

from visionlab.masking import MASKS
from visionlab.masking.base import Grid, Mask
from visionlab.registry import suggest


def list_masks(pattern: str = "*") -> list[str]:
    """Names that :func:`create_mask` knows, filtered by a shell pattern."""
    return MASKS.names(pattern)


def create_mask(name: str, grid: Grid | None = None, ratio: float = 0.75, **options: Any) -> Mask:
    """Build a mask strategy.

    Args:
        name: one of :func:`list_masks`.
        grid: (rows, columns) of patches; None is filled in by :class:`MaskedAutoencoder`.
        ratio: hidden share of the patches.
        options: the strategy's own keyword arguments, for example ``sigma`` of ``red``.

    Raises:
        UnknownNameError: no such strategy; the message holds the nearest one.
        TypeError: an option that the strategy does not have, or a missing one.

    Example:
        >>> mask = create_mask("red", grid=(14, 24), ratio=0.75, boundary="torus")
        >>> mask(2, key=(0, 0, 0)).mask.sum(1).tolist()
        [252, 252]
    """
    builder = MASKS.get(name)
    known = inspect.signature(builder).parameters
    unknown = sorted(set(options) - set(known))
    if unknown:
        own = sorted(set(known) - {"grid", "ratio"})
        hint = suggest(unknown[0], own) if own else "It takes grid and ratio only."
        raise TypeError(f"mask '{name}' has no option '{unknown[0]}'. {hint}")
    missing = [
        k for k, p in known.items() if p.default is inspect.Parameter.empty and k not in options
    ]
    if missing:
        raise TypeError(f"mask '{name}' needs {', '.join(repr(m) for m in missing)}")
    mask = builder(grid=grid, ratio=ratio, **options)
    if not isinstance(mask, Mask):
        raise TypeError(f"mask '{name}' built a {type(mask).__name__}, which is no Mask")
    return mask
