"""Files and folders as items of ``Trainer.predict``: each rank gets its own, none twice."""

from pathlib import Path
from typing import Any

import lightning as L
from torch.utils.data import DataLoader, Dataset


class PathData(L.LightningDataModule):
    """Paths under a root, one an item: ``{"path": str, "name": str, "index": int}``.

    Args:
        root: folder.
        pattern: glob below it, e.g. ``*`` (each file and folder), ``*.mp4`` or ``*/mav0/..``.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing matches.
    """

    seed: int = 0  # the run's, set by `visionlab.tasks.training`

    def __init__(self, root: str | Path, *, pattern: str = "*") -> None:
        super().__init__()
        self.root, self.pattern = Path(root), pattern
        if not self.root.is_dir():
            raise FileNotFoundError(f"no such folder: {self.root}")
        found = {path.resolve() for path in self.root.glob(pattern) if path.name[0] != "."}
        self.paths = sorted(found)
        if not self.paths:
            raise ValueError(f"nothing in {self.root} matches '{pattern}'")

    def predict_dataloader(self) -> DataLoader[Any]:
        """One path a batch, in order; Lightning shares them out over the ranks."""
        return DataLoader(_Items(self), batch_size=1, collate_fn=_only)

    def item(self, index: int) -> dict[str, Any]:
        """One path; its name is the path below the root with ``__`` for slashes."""
        path = self.paths[index]
        root = self.root.resolve()
        inside = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
        return {"path": str(path), "name": "__".join(inside.parts), "index": index}


class _Items(Dataset[dict[str, Any]]):
    def __init__(self, data: PathData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.data.item(index)


def _only(items: list[dict[str, Any]]) -> dict[str, Any]:
    return items[0]
