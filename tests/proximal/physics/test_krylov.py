"""Norms bounded from above; conjugate gradients that stop each sample alone."""

import pytest
import torch

from visionlab.proximal.physics.krylov import conjugate_gradients, norm2_lanczos, norm2_nonnegative


def test_lanczos_bounds_from_above_and_collatz_needs_no_probability() -> None:
    generator = torch.Generator().manual_seed(0)
    for seed in range(5):
        matrix = torch.rand(80, 50, generator=generator.manual_seed(seed), dtype=torch.float64)
        normal = matrix.T @ matrix
        true = float(torch.linalg.eigvalsh(normal)[-1])
        collatz = norm2_nonnegative(lambda x, a=normal: x @ a, (50,))
        assert true <= collatz <= true * 1.002
        lanczos = norm2_lanczos(lambda x, a=normal: x @ a, (50,), steps=40)
        assert true <= lanczos <= true * 1.2
    with pytest.raises(ValueError, match="negative entries came; use norm2_lanczos"):
        norm2_nonnegative(lambda x: -x, (4,))
    with pytest.raises(ValueError, match="pass more steps"):
        norm2_lanczos(lambda x: x * torch.linspace(1, 2, 5000), (5000,), steps=10)


def test_conjugate_gradients_stop_each_sample_alone() -> None:
    matrix = torch.diag(torch.linspace(1, 50, 12, dtype=torch.float64))
    drawn = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rhs = torch.stack([torch.eye(12, dtype=torch.float64)[0], drawn])
    both = conjugate_gradients(lambda x: x @ matrix, rhs, tolerance=1e-12)
    alone = conjugate_gradients(lambda x: x @ matrix, rhs[1:], tolerance=1e-12)
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=1e-14)
    torch.testing.assert_close(both, torch.linalg.solve(matrix, rhs.T).T)
    # a start that solves the system already is returned as it came
    again = conjugate_gradients(lambda x: x @ matrix, rhs, start=both, tolerance=1e-6)
    assert torch.equal(again, both)
