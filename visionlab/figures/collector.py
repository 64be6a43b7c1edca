"""How a benchmark hands its figures over: ``publish(measured(...))``, whoever listens.

A section prints what it likes and publishes tables. ``tools/benchmark.py SECTION ... --figures
FOLDER`` listens and writes them; without it publishing costs nothing.
"""

import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visionlab.figures.record import Column, Figure, FigureTable
from visionlab.figures.store import write_tables

# module -> distribution, where a version matters to a figure; only loaded ones are recorded
_PACKAGES = {
    "numpy": "numpy", "torch": "torch", "torchvision": "torchvision", "timm": "timm",
    "lightning": "lightning", "numba": "numba", "cv2": "opencv-python-headless",
    "scipy": "scipy", "triton": "triton", "lightly": "lightly", "deepinv": "deepinv",
    "skimage": "scikit-image", "sklearn": "scikit-learn", "poselib": "poselib",
    "webdataset": "webdataset", "litdata": "litdata",
}  # fmt: skip

_listener: dict[str, Any] = {}


def collect_into(folder: str | Path, *, command: str) -> None:
    """From now on, write every published table into ``folder``, as made by ``command``."""
    _listener.update(folder=Path(folder), command=command)


def publish(table: FigureTable) -> None:
    """Hand a table to the listener, if there is one."""
    if _listener:
        write_tables(
            _listener["folder"], [table.changed(command=table.command or _listener["command"])]
        )


def measured(
    id: str,
    title: str,
    *,
    head: str,
    columns: Sequence[Column],
    figures: Sequence[Figure],
    note: str = "",
    chart: str = "",
    units: Mapping[str, str] | None = None,
    device: str = "cpu",
    source: str = "measured",
) -> FigureTable:
    """A table of what this process has just measured: machine, versions and date are filled in."""
    return FigureTable(
        id=id,
        title=title,
        head=head,
        columns=columns,
        figures=figures,
        note=note,
        chart=chart,
        units=units or {},
        device=device,
        source=source,
        machine=machine(device),
        versions=versions(),
        date=datetime.date.today().isoformat(),
    )


def machine(device: str = "cpu") -> str:
    """Processor, cores, threads in use and load; on a GPU its name comes first."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    text = f"{_processor()}, {os.cpu_count()} cores, load {load:.1f}"
    torch = sys.modules.get("torch")
    if torch is not None:
        text += f", {torch.get_num_threads()} torch thread(s)"
        if device == "gpu":
            text = f"{torch.cuda.get_device_name()}; {text}"
    return text


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({platform.machine()})"
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Python's and that of each loaded package that bears on a figure."""
    found = {"python": platform.python_version()}
    for module, distribution in _PACKAGES.items():
        if module in sys.modules:
            try:
                found[module] = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:  # installed under another name
                found[module] = str(getattr(sys.modules[module], "__version__", "unknown"))
    return found
