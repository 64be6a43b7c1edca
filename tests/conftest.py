"""Shared by all tests: evaluation data beside the checkout, GPU marker, one torch thread."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """``shared_data("cifar10/val.npz")``: a file of the evaluation data, or a skip with reason."""

    def find(name: str) -> Path:
        path = ROOT.parent / "shared" / "data" / name
        if not path.exists():
            pytest.skip(f"evaluation data absent: {name} (not part of the repository)")
        return path

    return find


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # files with slow tests first, those of tools at the head, whose launched processes are waited
    # for: one that starts last would keep the other processes of the test run idle
    slow = sorted({i.path for i in items if i.get_closest_marker("slow")}, reverse=True)
    place = {path: at for at, path in enumerate(slow)}
    items.sort(key=lambda item: place.get(item.path, len(slow)))
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)
