import pytest
import torch

from visionlab.proximal.physics import CircularBlur, ValidBlur, gaussian_blur, gaussian_kernel


def image(height: int = 31, width: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, 1, height, width, generator=generator, dtype=torch.float64)


def test_circular_blur_is_a_convolution_with_wrapped_borders() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    kernel = torch.rand(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = ndimage.convolve(image()[0, 0].numpy(), kernel.numpy(), mode="wrap")
    torch.testing.assert_close(CircularBlur(kernel)(image())[0, 0], torch.from_numpy(expected))


def test_valid_blur_is_a_convolution_where_the_kernel_fits() -> None:
    signal = pytest.importorskip("scipy.signal")
    kernel = torch.rand(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = signal.convolve2d(image()[0, 0].numpy(), kernel.numpy(), mode="valid")
    torch.testing.assert_close(ValidBlur(kernel)(image())[0, 0], torch.from_numpy(expected))


def test_gaussian_has_the_width_it_says() -> None:
    kernel = gaussian_kernel(2.0)
    t = torch.arange(len(kernel)) - len(kernel) // 2
    assert float(kernel.sum()) == pytest.approx(1)
    assert float((kernel.sum(0) * t**2).sum()) ** 0.5 == pytest.approx(2.0, rel=2e-3)


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"a kernel is \(odd, odd\), got shape \(2, 3\)"):
        CircularBlur(torch.ones(2, 3))
    with pytest.raises(ValueError, match="not all zero"):
        CircularBlur(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="std and truncate are positive pixels, got -1"):
        gaussian_kernel(-1.0)
    with pytest.raises(ValueError, match="std and truncate are positive pixels, got nan"):
        gaussian_kernel(float("nan"))
    with pytest.raises(ValueError, match="boundary is 'circular' or 'valid', got 'mirror'"):
        gaussian_blur(1.0, boundary="mirror")
    for boundary in ("circular", "valid"):
        with pytest.raises(
            ValueError, match="an image of 8x24 is smaller than the blur kernel 17x17"
        ):
            gaussian_blur(2.0, boundary=boundary)(image(8, 24))
