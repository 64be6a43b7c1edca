"""Reconstruction panels."""

import numpy as np
import pytest
import torch

from visionlab.masking.reconstruction import Reconstruction
from visionlab.plots.reconstructions import plot_reconstruction


def pictures(channels, norm_pix=False):
    image = torch.rand(3, channels, 8, 12)
    hidden = torch.tensor([[True, False, True, True, True, False]]).expand(3, 6)
    return Reconstruction(image, image * 0, image * 0.5, hidden, (2, 3), norm_pix)


@pytest.mark.parametrize("channels", [1, 3])
def test_panel_and_arrays(channels, tmp_path):
    made = pictures(channels)
    figure = plot_reconstruction(made, tmp_path / "r.png", count=2)
    assert len(figure.axes) == 6
    saved = np.load(tmp_path / "r.npz")
    assert saved["image"].shape == (2, 8, 12, channels)
    np.testing.assert_allclose(
        saved["prediction"], 0.5 * made.image[:2].permute(0, 2, 3, 1), atol=1e-6
    )
    assert (saved["visible"][:, :4, :4] == 0.5).all()  # hidden patches are grey


def test_norm_pix_is_labelled():
    assert "norm-pix" in plot_reconstruction(pictures(3, True)).get_supxlabel()
    assert not plot_reconstruction(pictures(3)).get_supxlabel()


def test_normalisation_is_undone(tmp_path):
    made = pictures(3)
    plot_reconstruction(made, tmp_path / "r.png", mean=(0.1, 0.2, 0.3), std=(0.5,))
    saved = np.load(tmp_path / "r.npz")["image"]
    expected = made.image.permute(0, 2, 3, 1).numpy() * 0.5 + np.array([0.1, 0.2, 0.3])
    np.testing.assert_allclose(saved, expected.clip(0, 1), atol=1e-6)
