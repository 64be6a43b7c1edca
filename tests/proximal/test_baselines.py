import pytest
import torch

from visionlab.proximal.baselines import (
    gradient,
    gradient_adjoint,
    least_squares,
    power_spectrum,
    total_variation,
    tv_denoise,
    tv_restore,
    wiener,
)
from visionlab.proximal.physics import (
    CompressedSensing,
    Inpainting,
    MatrixOperator,
    add_noise,
    gaussian_blur,
)


def blocks(*, size: int = 32, batch: int = 2) -> torch.Tensor:
    """Piecewise constant images: what total variation is made for."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 1, 4, 4, generator=generator, dtype=torch.float64)
    return coarse.repeat_interleave(size // 4, 2).repeat_interleave(size // 4, 3)


def noisy(std: float) -> torch.Tensor:
    return add_noise(blocks(), std, generator=torch.Generator().manual_seed(1))


def mse(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).square().mean())


def rof(x: torch.Tensor, y: torch.Tensor, weight: float) -> torch.Tensor:
    return 0.5 * (x - y).flatten(1).square().sum(1) + weight * total_variation(x)


def test_gradient_and_its_adjoint() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 7, 5, generator=generator, dtype=torch.float64)
    p = torch.randn(2, 2, 3, 7, 5, generator=generator, dtype=torch.float64)
    assert float((gradient(x) * p).sum()) == pytest.approx(float((x * gradient_adjoint(p)).sum()))


def test_total_variation_of_a_square_is_its_perimeter_up_to_one_corner() -> None:
    x = torch.zeros(1, 1, 9, 9)
    x[..., 2:6, 3:6] = 2.0
    # the forward difference meets both sides at one pixel only at the far corner
    assert float(total_variation(x)) == pytest.approx(2 * (2 * (4 + 3) - 2 + 2**0.5), rel=1e-5)


@pytest.mark.parametrize("weight", [0.02, 0.1])
def test_denoising_agrees_with_scikit_image(weight: float) -> None:
    restoration = pytest.importorskip("skimage.restoration")
    y = noisy(0.1)
    ours = tv_denoise(y, weight, iterations=1500)
    for i in range(len(y)):
        theirs = torch.from_numpy(
            restoration.denoise_tv_chambolle(
                y[i, 0].numpy(), weight=weight, eps=1e-12, max_num_iter=20000
            )
        )
        assert (ours[i, 0] - theirs).abs().max() < 2e-3
        ours_value, theirs_value = (
            float(rof(x, y[i : i + 1], weight)) for x in (ours[i : i + 1], theirs[None, None])
        )
        assert ours_value <= theirs_value * (1 + 1e-6)


def test_primal_dual_with_the_identity_is_denoising() -> None:
    y = noisy(0.1)
    identity = Inpainting(torch.ones(32, 32))
    expected = tv_denoise(y, 0.05, iterations=2000)
    torch.testing.assert_close(
        tv_restore(y, identity, 0.05, iterations=2000), expected, rtol=0, atol=1e-4
    )


def test_one_weight_per_sample() -> None:
    y = noisy(0.1)
    weights = torch.tensor([0.02, 0.2], dtype=torch.float64)
    blur = gaussian_blur(1.0)
    for i in range(2):
        one = slice(i, i + 1)
        torch.testing.assert_close(
            tv_denoise(y, weights)[one], tv_denoise(y[one], float(weights[i]))
        )
        torch.testing.assert_close(
            tv_restore(y, blur, weights, iterations=50)[one],
            tv_restore(y[one], blur, float(weights[i]), iterations=50),
        )


@pytest.mark.parametrize("name", ["blur", "sensing"])
def test_total_variation_restores_piecewise_constant_images(name: str) -> None:
    physics = {
        "blur": gaussian_blur(1.0),
        "sensing": CompressedSensing((1, 32, 32), ratio=0.5),
    }[name]
    y = add_noise(physics(blocks()), 0.02, generator=torch.Generator().manual_seed(2))
    restored = tv_restore(y, physics, 0.01, iterations=400)
    assert mse(restored, blocks()) < 0.4 * mse(physics.initial(y), blocks())
    # converged: neighbouring weights of the iteration count give the same image
    assert (restored - tv_restore(y, physics, 0.01, iterations=1200)).abs().max() < 5e-3


def test_wiener_is_the_best_linear_filter_for_its_spectrum() -> None:
    """Stationary random fields with a known spectrum: no constant is better."""
    generator = torch.Generator().manual_seed(0)
    blur, white = gaussian_blur(1.0), torch.randn(400, 1, 16, 16, generator=generator).double()
    x = gaussian_blur(1.2)(white)
    y = add_noise(blur(x), 0.05, generator=generator)
    best = mse(wiener(y, blur, noise=0.05, spectrum=power_spectrum(x)), x)
    for constant in (1e-4, 1e-3, 1e-2, 1e-1):
        assert best < mse(least_squares(y, blur, constant), x)
    assert best < mse(y, x)


def test_white_noise_has_a_flat_spectrum_of_its_variance() -> None:
    white = torch.randn(500, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.3
    assert power_spectrum(white).mean() == pytest.approx(0.09, rel=0.05)


def test_messages() -> None:
    y = noisy(0.1)
    spectrum = power_spectrum(y)
    with pytest.raises(TypeError, match="needs a CircularBlur, got MatrixOperator"):
        wiener(y, MatrixOperator(torch.eye(4), (1, 2, 2)), noise=0.1, spectrum=spectrum)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"the spectrum is \(32, 17\), images of this size need"):
        wiener(y[..., :16], gaussian_blur(1.0), noise=0.1, spectrum=spectrum)
    with pytest.raises(ValueError, match="a weight is a positive number, got 0"):
        tv_denoise(y, 0.0)
    with pytest.raises(ValueError, match="noise is a positive standard deviation, got nan"):
        wiener(y, gaussian_blur(1.0), noise=float("nan"), spectrum=spectrum)
    with pytest.raises(TypeError, match=r"expected floats .* got torch.uint8"):
        tv_denoise((y * 255).byte(), 0.1)
    with pytest.raises(TypeError, match=r"measurements: expected floats .* got torch.uint8"):
        tv_restore((y * 255).byte(), gaussian_blur(1.0), 0.1)
