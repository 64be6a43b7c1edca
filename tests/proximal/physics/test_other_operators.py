import pytest
import torch

from visionlab.proximal.physics import (
    CompressedSensing,
    FunctionOperator,
    Inpainting,
    MatrixOperator,
    SuperResolution,
    add_noise,
)
from visionlab.proximal.physics.base import check_images
from visionlab.proximal.physics.krylov import norm2_lanczos, norm2_nonnegative


def test_compressed_sensing_has_orthonormal_rows_and_is_reproducible() -> None:
    sensing = CompressedSensing((1, 8, 9), ratio=0.25, seed=5)
    y = torch.randn(3, 18, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(sensing(sensing.adjoint(y)), y)
    again, other = (CompressedSensing((1, 8, 9), ratio=0.25, seed=s) for s in (5, 6))
    assert torch.equal(sensing.adjoint(y), again.adjoint(y))
    assert not torch.equal(sensing.adjoint(y), other.adjoint(y))


def test_compressed_sensing_spreads_one_pixel_over_all_measurements() -> None:
    pixel = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    pixel[0, 0, 5, 7] = 1
    y = CompressedSensing((1, 32, 32), ratio=0.25)(pixel)
    assert float(y.abs().max()) < 0.2  # incoherent: no measurement sees much of one pixel
    assert float(y.norm()) == pytest.approx(0.5, abs=0.05)


def test_super_resolution_is_blur_then_decimation() -> None:
    enlarge = SuperResolution(3)
    x = torch.rand(1, 1, 12, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(enlarge(x), enlarge.blur(x)[..., ::3, ::3])


def test_inpainting_starts_from_the_mean_of_what_is_seen() -> None:
    mask = torch.tensor([[1, 0], [1, 1]])
    y = Inpainting(mask)(torch.tensor([[[[1.0, 9.0], [2.0, 3.0]]]]))
    assert torch.equal(y, torch.tensor([[[[1.0, 0.0], [2.0, 3.0]]]]))
    assert torch.equal(Inpainting(mask).initial(y), torch.tensor([[[[1.0, 2.0], [2.0, 3.0]]]]))


def test_function_operator_takes_a_given_adjoint() -> None:
    operator = FunctionOperator(lambda x: 2 * x, (1, 3, 3), adjoint=lambda y: 2 * y)
    assert torch.equal(operator.adjoint(torch.ones(1, 1, 3, 3)), 2 * torch.ones(1, 1, 3, 3))


def test_noise_comes_from_the_generator_only() -> None:
    y = torch.zeros(2, 1, 50, 50)
    a, b = (add_noise(y, 0.3, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(a, b)
    assert float(a.std()) == pytest.approx(0.3, rel=0.05)
    assert not y.any()


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


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"in \(0, 1\], got 1.5"):
        CompressedSensing((1, 8, 8), ratio=1.5)
    sensing = CompressedSensing((1, 8, 8), ratio=0.5)
    with pytest.raises(ValueError, match=r"images of shape \(1, 8, 8\), got \(1, 9, 8\)"):
        sensing(torch.zeros(1, 1, 9, 8))
    with pytest.raises(ValueError, match=r"measurements of shape \(B, 32\), got \(1, 31\)"):
        sensing.adjoint(torch.zeros(1, 31))
    with pytest.raises(ValueError, match="some pixel seen"):
        Inpainting(torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"keep is a probability in \(0, 1\], got 0"):
        Inpainting.random((1, 4, 4), keep=0.0)
    with pytest.raises(ValueError, match=r"the mask is \(4, 4\), the image \(4, 5\)"):
        Inpainting(torch.ones(4, 4))(torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match="factor is a whole number of at least 2, got 1"):
        SuperResolution(1)
    with pytest.raises(ValueError, match="factor is a whole number of at least 2, got nan"):
        SuperResolution(float("nan"))
    with pytest.raises(ValueError, match=r"each at least 1, got \(1, 0, 8\)"):
        CompressedSensing((1, 0, 8), ratio=0.5)
    with pytest.raises(ValueError, match=r"the mask is \(4, 4\), the image \(4, 5\)"):
        Inpainting(torch.ones(4, 4)).initial(torch.zeros(1, 1, 4, 5))
    with pytest.raises(TypeError, match=r"images: expected floats .* got torch.uint8"):
        Inpainting(torch.full((4, 4), 0.5))(torch.ones(1, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="an image of 13x12 is not a multiple of the factor 3"):
        SuperResolution(3)(torch.zeros(1, 1, 13, 12))


def test_operators_that_are_not_square_say_which_side_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"must be \(m, 6\); got \(4, 5\)"):
        MatrixOperator(torch.ones(4, 5), (1, 2, 3))
    operator = MatrixOperator(torch.ones(4, 6), (1, 2, 3))
    with pytest.raises(ValueError, match=r"images of shape \(1, 2, 3\), got \(1, 3, 2\)"):
        operator(torch.zeros(1, 1, 3, 2))
    with pytest.raises(ValueError, match=r"measurements of shape \(B, 4\), got \(2, 6\)"):
        operator.adjoint(torch.zeros(2, 6))
    with pytest.raises(ValueError, match=r"images of shape \(1, 2, 3\), got \(1, 3, 2\)"):
        FunctionOperator(lambda x: x, (1, 2, 3))(torch.zeros(1, 1, 3, 2))
    with pytest.raises(ValueError, match="the function is not linear"):
        FunctionOperator(torch.square, (1, 2, 3))
    with pytest.raises(ValueError, match="the function is not linear"):
        FunctionOperator(lambda x: x + 1, (1, 2, 3))
    with pytest.raises(ValueError, match="maps every image to zero"):
        FunctionOperator(torch.zeros_like, (1, 2, 3))
    with pytest.raises(ValueError, match="the adjoint is not the transpose of the operator"):
        FunctionOperator(lambda x: 2 * x, (1, 2, 3), adjoint=lambda y: y)
    with pytest.raises(ValueError, match=r"images of shape \(1, 2, 2\), not \(1, 2, 3\)"):
        FunctionOperator(lambda x: x[..., :2], (1, 2, 3), adjoint=lambda y: y)
    for wrong in (torch.zeros(4, 6), torch.full((4, 6), float("nan"))):
        with pytest.raises(ValueError, match="holds finite numbers and is not all zero"):
            MatrixOperator(wrong, (1, 2, 3))


def test_images_are_checked_at_the_door() -> None:
    good = torch.rand(1, 1, 4, 4)
    assert check_images(good) is good
    with pytest.raises(TypeError, match=r"expected floats .* got torch.uint8; divide by 255"):
        check_images(torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(TypeError, match="expected a torch tensor, got list"):
        check_images([[1.0]])
    with pytest.raises(ValueError, match=r"expected \(B, C, H, W\), got shape \(4, 4\)"):
        check_images(good[0, 0])
    with pytest.raises(ValueError, match="empty"):
        check_images(good[:0])
    with pytest.raises(ValueError, match="measurements: 1 of 16 values are NaN or infinite"):
        check_images(good.index_put((torch.tensor(0),) * 4, torch.tensor(float("nan"))),
                     name="measurements")  # fmt: skip
