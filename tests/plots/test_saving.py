"""Figures are written whole or not at all."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from visionlab.plots.saving import save_figure


def test_writes_picture_and_data(tmp_path):
    save_figure(Figure(), tmp_path / "a" / "f.pdf", {"x": [1, 2]})
    assert (tmp_path / "a" / "f.pdf").read_bytes().startswith(b"%PDF")
    assert np.load(tmp_path / "a" / "f.npz")["x"].tolist() == [1, 2]


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "f.png"
    path.write_bytes(b"old")

    class Broken(Figure):
        def savefig(self, *args, **kwargs):
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        save_figure(Broken(), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.png"]
