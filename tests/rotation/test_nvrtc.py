"""Kernels compiled without a GPU, and what the compiler says; the launch plan by hand."""

import pytest

from visionlab.rotation import native, nvrtc

ARCHITECTURES = [(8, 0), (9, 0), (10, 0)]


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.usefixtures("nvrtc_here")
def test_nvrtc_compiles_the_text_without_a_gpu(capability):
    cubin = nvrtc.compile_cubin(native.kernel_text(), capability=capability)
    assert cubin.startswith(b"\x7fELF")
    for kernel in (b"hough_so3_vote", b"hough_so3_unpack", b"hough_so3_refine"):
        assert kernel in cubin


@pytest.mark.usefixtures("nvrtc_here")
def test_compile_errors_carry_the_log():
    with pytest.raises(nvrtc.CudaError, match=r"(?s)NVRTC_ERROR_COMPILATION.*broken\.cu.*nonsense"):
        nvrtc.compile_cubin("nonsense;", capability=(9, 0), name="broken.cu")
    with pytest.raises(nvrtc.CudaError, match=r"sm_11.*invalid value for --gpu-architecture"):
        nvrtc.compile_cubin("", capability=(1, 1))


def test_a_missing_nvrtc_is_named():
    with pytest.raises(
        nvrtc.CudaError, match=r"cannot load liba\.so or libb\.so: liba\.so: cannot"
    ):
        nvrtc._first_library(["liba.so", "libb.so"])


@pytest.mark.parametrize("limit", [48 * 1024, 99 * 1024, 227 * 1024])
@pytest.mark.parametrize("bins", [1, 33, 141, 301])
def test_a_slab_is_cut_into_as_few_equal_tiles_as_fit(bins, limit):
    plan = nvrtc.plan_launch(1000, bins, limit)
    assert plan.shared_bytes == nvrtc.HEADER_BYTES + 4 * bins * plan.rows <= limit
    assert plan.tiles * plan.rows >= bins > (plan.tiles - 1) * plan.rows
    if plan.tiles > 1:  # one tile less would not fit
        rows = -(-bins // (plan.tiles - 1))
        assert nvrtc.HEADER_BYTES + 4 * bins * rows > limit


def test_many_lines_get_more_threads():
    assert nvrtc.plan_launch(2048, 141, 99 * 1024).threads == 256
    assert nvrtc.plan_launch(2049, 141, 99 * 1024).threads == 512
