import numpy as np
import torch

from visionlab.plots.proximal_prior import plot_laplacian, plot_prior_curves
from visionlab.proximal.curves import PriorCurve


def test_laplacian_panels_hold_truth_and_learned_curves():
    y = np.linspace(-2, 2, 9)
    soft = np.sign(y) * np.maximum(np.abs(y) - 1, 0)
    figure = plot_laplacian(y, {"PM": soft}, y, {"PM": np.abs(y) + 7.0})
    left, right = figure.axes
    assert np.allclose(left.lines[0].get_ydata(), soft)
    assert np.allclose(right.lines[1].get_ydata(), np.abs(y))  # the constant is taken off
    assert [t.get_text() for t in right.get_legend().get_texts()] == ["true", "PM"]


def test_curves_show_medians_and_mark_what_did_not_converge(tmp_path):
    value = torch.tensor([[1.0, 1.0, 1.0], [2.0, 3.0, 4.0]])
    converged = torch.tensor([[True, True, True], [True, False, True]])
    curve = PriorCurve("blur", (0.0, 0.5), value, torch.zeros(2, 3), converged)
    figure = plot_prior_curves([curve, curve])
    panel = figure.axes[0]
    assert panel.lines[0].get_ydata().tolist() == [0.0, 2.0]
    assert panel.lines[1].get_xdata().tolist() == [0.5]
    assert "px" in panel.get_xlabel()
    figure.savefig(tmp_path / "curves.png")
