from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.proximal.closed_form import QuadraticProx
from tests.tasks.restoration_fixture import parse, save_network
from visionlab.backbones.convex import ConvexMLP
from visionlab.data.laplacian import LaplacianData
from visionlab.proximal import LearnedProximalNetwork, ProximalMap, ProximalNetwork
from visionlab.tasks import learned_prior
from visionlab.tasks.learned_prior import LearnedPrior, fixed_level, laplacian_errors
from visionlab.tasks.proximal_matching import ProximalMatching


class Pictures:
    """As much of a data module as the evaluation asks for."""

    datasets = ("train", "val")

    def loader(self, split: str) -> DataLoader:
        assert split == "val"
        generator = torch.Generator().manual_seed(0)
        return DataLoader([{"image": torch.rand(1, 20, 16, generator=generator)} for _ in range(5)])

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        return images


class SoftThreshold(ProximalMap):
    """The exact answer of the Laplacian case, made invertible by a slope of ``tiny`` inside."""

    def __init__(self, tiny: float) -> None:
        super().__init__()
        self.tiny = tiny

    @property
    def curvature(self) -> float:
        return self.tiny

    def value_and_prox(self, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        beyond = (v.abs() - 1).clamp_min(0)
        psi = 0.5 * beyond.square() + 0.5 * self.tiny * v.square()
        return psi[:, 0], v.sign() * beyond + self.tiny * v


def test_errors_of_the_exact_prox_are_those_of_its_slope() -> None:
    prox, worst, prior, from_minimum = laplacian_errors(SoftThreshold(1e-3))
    assert worst == pytest.approx(4e-3, rel=1e-6)
    assert prox == pytest.approx(2e-3, rel=0.01)
    assert max(prior, from_minimum) < 0.01
    identity = laplacian_errors(QuadraticProx(1.0))
    assert identity[1] == pytest.approx(1.0)  # |y - soft(y)| is 1 from |y| = 1 on


def test_paths_become_a_table_and_a_picture(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = LearnedProximalNetwork(1, 4, strides=(1, 2), alpha=0.01, beta=20.0, noise_level=0.1)
    rows = LearnedPrior(count=3, size=12).run(ProximalMatching(net), Pictures(), tmp_path)
    assert [row["path"] for row in rows] == ["noise", "blur", "mixing"]
    assert all(row["converged (%)"] == 100 for row in rows)
    assert (tmp_path / "pictures" / "prior.png").stat().st_size > 1000
    with np.load(tmp_path / "pictures" / "prior.npz") as numbers:
        assert numbers["blur"].shape == (5, 3)


def test_laplacian_run_becomes_a_table_and_a_picture(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = ProximalNetwork(ConvexMLP(1, 8, depth=1, alpha=1e-3), noise_level=1.0)
    rows = LearnedPrior().run(ProximalMatching(net), LaplacianData(), tmp_path)
    assert rows[0]["error of"] == "prox"
    assert rows[0]["mean"] == pytest.approx(laplacian_errors(net)[0], abs=1e-4)
    assert (tmp_path / "pictures" / "prior.png").stat().st_size > 1000


def test_level_of_a_range() -> None:
    net = LearnedProximalNetwork(1, 4, strides=(1,), noise_level=(0.02, 0.2), conditioned=True)
    assert fixed_level(net).noise_level == 0.2
    assert fixed_level(net, 0.1).noise_level == 0.1


def test_messages(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="count is at least 2 and size at least 1, got 1 and 48"):
        LearnedPrior(count=1)
    with pytest.raises(ValueError, match="holds a bare model, not a training run"):
        learned_prior.run(parse(learned_prior, str(save_network(tmp_path))))
