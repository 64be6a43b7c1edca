"""Curves in a CSV file that survives a kill.

Rows are appended; a resumed run drops the rows that it will draw again.
"""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from visionlab import atomic

_HEADER = "step,metric,value\n"


class CurveLogger(Logger):
    """Long-format CSV ``step,metric,value``: metrics may come and go without rewriting the file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._ahead: tuple[int | None, set[str]] = (None, set())

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "curves"

    @property
    def version(self) -> str:
        """There is one file per run."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run folder holds config.yaml; nothing to write."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one row per metric."""
        written = self._ahead[1] if self._ahead[0] == step else set()
        self._ahead = (None, set())
        self._append({k: v for k, v in metrics.items() if k not in written}, step)

    @rank_zero_only
    def write_ahead(self, metrics: Mapping[str, Any], step: int) -> None:
        """Append rows that `log_metrics` is going to get next, and will then pass over."""
        self._append(metrics, step)
        self._ahead = (step, set(metrics))

    @rank_zero_only
    def sync(self) -> None:
        """Put the rows on the disk, before a checkpoint counts their steps as done."""
        if self.path.exists():
            with self.path.open("ab") as file:
                os.fsync(file.fileno())

    def _append(self, metrics: Mapping[str, Any], step: int | None) -> None:
        rows = [(step, k, repr(float(v))) for k, v in metrics.items() if k != "epoch"]
        if not rows:
            return
        text = io.StringIO()
        if not self.path.exists():
            text.write(_HEADER)
        csv.writer(text, lineterminator="\n").writerows(rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text.getvalue())


def read_curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Curves by metric as lists of (step, value)."""
    curves: dict[str, list[tuple[int, float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            curves.setdefault(row["metric"], []).append((int(row["step"]), float(row["value"])))
    return curves


def drop_after(path: Path, step: int, *, length: int | None = None) -> None:
    """Drop the rows that a resumed run draws again; a file without a whole header is removed.

    Args:
        path: the file.
        step: rows logged at or after this optimiser step go, and one cut short by a kill.
        length: bytes of the file when the checkpoint was made, if known: whatever lies behind
            them goes, the rows of a validation too, which are logged under the step before it.
    """
    if not path.exists():
        return
    header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    if header != _HEADER:
        path.unlink()
        return
    if length is not None and path.stat().st_size >= length > 0:
        os.truncate(path, length)
        return
    kept = [
        r for r in rows if r.endswith("\n") and r.count(",") == 2 and int(r.split(",")[0]) < step
    ]
    atomic.write_text("".join([header, *kept]), path)
