import ctypes
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from visionlab.rotation import native, nvrtc

TOOL = Path(__file__).parents[2] / "tools/build_cuda.py"
spec = importlib.util.spec_from_file_location("build_cuda", TOOL)
build_cuda = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build_cuda)

NVCC = shutil.which("nvcc") or os.environ.get("CUDA_HOME")


@pytest.fixture
def fresh(monkeypatch):
    """The loader as in a new process; returns a function that sets the switch."""
    cached = (
        *(native.policy, native.load_prebuilt, native.probe_nvrtc, native.source),
        *(native._automatic_backend, native._compiled_kernels),
    )

    def set_switch(value):
        for function in cached:
            function.cache_clear()
        if value is None:
            monkeypatch.delenv(native.SWITCH, raising=False)
        else:
            monkeypatch.setenv(native.SWITCH, value)

    set_switch(None)
    yield set_switch
    for function in cached:
        function.cache_clear()


def run_python(code, **environment):
    """Standard output of a fresh interpreter, as JSON."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


# --- the kernel text and NVRTC ------------------------------------------------------------------


def test_the_text_includes_nothing():
    assert "#include" not in native.kernel_text()


def test_a_torch_without_cuda_is_named(fresh, monkeypatch):
    monkeypatch.setattr("torch.version.cuda", None)
    nvrtc.nvrtc_library.cache_clear()
    fresh("nvrtc")
    assert native.probe_nvrtc() == (
        False,
        f"torch {__import__('torch').__version__} was built without CUDA",
    )
    nvrtc.nvrtc_library.cache_clear()


# --- the policy ---------------------------------------------------------------------------------


def test_wrong_policies_get_the_nearest_right_one(fresh):
    fresh("prebuild")
    with pytest.raises(ValueError, match=r"VISIONLAB_NATIVE='prebuild' is no policy.*'prebuilt'"):
        native.policy()
    fresh(" NVRTC ")
    assert native.policy() == "nvrtc"


def test_off_names_the_switch_for_both_causes(fresh):
    fresh("off")
    with pytest.raises(native.NativeUnavailable) as error:
        native.source()
    assert str(error.value) == (
        "no CUDA kernels. Prebuilt library: VISIONLAB_NATIVE=off. "
        "NVRTC: VISIONLAB_NATIVE=off. backend='numba' runs on the CPU"
    )


def test_both_causes_are_named_and_tried_only_once(fresh, monkeypatch, tmp_path):
    calls = []

    def no_nvrtc():
        calls.append(1)
        raise nvrtc.CudaError("cannot load libnvrtc.so.99")

    monkeypatch.setattr(nvrtc, "nvrtc_library", no_nvrtc)
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "_cuda.abi3.so")
    fresh(None)
    for _ in range(3):
        with pytest.raises(
            native.NativeUnavailable,
            match=r"Prebuilt library: no _cuda\.abi3\.so in .*NVRTC: cannot load libnvrtc\.so\.99",
        ):
            native.source()
    assert len(calls) == 1


@pytest.mark.usefixtures("nvrtc_here")
def test_one_log_line_says_what_runs(fresh, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "_cuda.abi3.so")
    fresh(None)
    with caplog.at_level(logging.INFO, native.__name__):
        assert [native.source() for _ in range(3)] == ["nvrtc"] * 3
    assert [r.message.split("(")[0] for r in caplog.records] == ["CUDA votes: NVRTC at first use "]


def test_a_broken_library_is_a_cause(fresh, monkeypatch, tmp_path):
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "_cuda.abi3.so")
    native.LIBRARY.write_bytes(b"not a library")
    fresh("prebuilt")
    with pytest.raises(native.NativeUnavailable, match=r"_cuda\.abi3\.so does not load: .*") as e:
        native.source()
    assert "NVRTC: VISIONLAB_NATIVE=prebuilt" in str(e.value)


def test_backends_are_chosen_by_where_the_data_lie(fresh, monkeypatch, caplog):
    assert native.choose_backend("numpy", on_gpu=False) == "numpy"
    assert native.choose_backend("auto", on_gpu=False) == "numba"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"backend='cuda' was asked for, but torch sees no CUDA"):
        native.choose_backend("cuda", on_gpu=False)
    fresh("off")
    with caplog.at_level(logging.WARNING, native.__name__):
        assert [native.choose_backend("auto", on_gpu=True) for _ in range(2)] == ["numba"] * 2
    assert len(caplog.records) == 1
    assert "VISIONLAB_NATIVE=off" in caplog.text
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(native.NativeUnavailable, match="no CUDA kernels"):
        native.choose_backend("cuda", on_gpu=True)


def test_a_missing_text_names_both_places(monkeypatch, tmp_path):
    native.source_folder.cache_clear()
    monkeypatch.setattr(native, "__file__", str(tmp_path / "visionlab/rotation/native.py"))
    with pytest.raises(
        FileNotFoundError, match=r"hough_so3\.cuh is neither in .*visionlab/csrc nor"
    ):
        native.source_folder()
    (tmp_path / "csrc").mkdir()
    for name in native.KERNEL_FILES:
        (tmp_path / "csrc" / name).touch()
    assert native.source_folder() == tmp_path / "csrc"
    native.source_folder.cache_clear()


# --- the prebuilt library -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def prebuilt(tmp_path_factory):
    if NVCC is None:
        pytest.skip("nvcc is not installed: it builds the CUDA op")
    output = tmp_path_factory.mktemp("prebuilt") / "_cuda.abi3.so"
    assert build_cuda.main(["--arch", "9.0", "--output", str(output)]) == 0
    return output


LOAD = """
import json, sys
from pathlib import Path
from visionlab.rotation import native
native.LIBRARY = Path(sys.argv[1]) if len(sys.argv) > 1 else Path({library!r})
import torch
from visionlab.rotation import op
lines = torch.rand(3, 50, 4, dtype=torch.float64) * 5
rows, start = torch.rand(2, 6, 9).double(), torch.zeros(2, 3).double()
cuda = torch._C.DispatchKey.CUDA


def refusal(name, *arguments):  # the compiled kernels themselves, called past the dispatcher
    try:
        op.registered_ops()[name]._op_dk(cuda, *arguments)
    except RuntimeError as error:
        return str(error).split(": ", 1)[1]


calls = {{op.VOTE: (lines, None, 5), op.REFINE: (rows, None, start, 1.0, 0.0)}}
refusals = None
if native.load_prebuilt().usable:
    refusals = [refusal(name, *arguments) for name, arguments in calls.items()]
print(json.dumps({{
    "attempt": list(native.load_prebuilt()),
    "schemas": [str(one._schema) for one in op.registered_ops().values()],
    "dump": {{name: torch._C._dispatch_dump(name) for name in op.SCHEMAS}},
    "refusals": refusals,
    "votes": op.hough_vote(lines, bins=5).votes.tolist(),
}}))
"""


def cuda_registration(dump):
    """Where an op's CUDA kernel was registered."""
    return next(line for line in dump.splitlines() if line.startswith("CUDA: "))


@pytest.mark.slow
def test_nvcc_builds_an_op_that_loads_without_a_gpu(prebuilt):
    seen = run_python(LOAD.format(library=str(prebuilt)))
    assert seen["attempt"] == [True, ""]
    assert seen["schemas"] == [
        "visionlab::hough_vote(Tensor lines, Tensor? weights, int bins) -> Tensor",
        "visionlab::so3_refine(Tensor rows, Tensor? counts, Tensor start, float first_scale, "
        "float scale) -> Tensor",
    ]
    for dump in seen["dump"].values():
        assert "hough_so3.cu" in cuda_registration(dump)
    assert min(seen["votes"]) > 0
    assert seen["refusals"] == [
        "lines must be a contiguous (B, N, 4) float64 CUDA tensor",
        "rows must be a contiguous (B, 6, N) float64 CUDA tensor",
    ]


@pytest.mark.slow
def test_a_library_of_another_text_is_refused(prebuilt, tmp_path):
    stale = tmp_path / "_cuda.abi3.so"
    stale.write_bytes(prebuilt.read_bytes().replace(native.text_hash().encode(), b"0" * 16))
    seen = run_python(LOAD.format(library=str(stale)))
    assert seen["attempt"] == [
        False,
        "_cuda.abi3.so was built from another kernel text; build it again",
    ]
    for dump in seen["dump"].values():
        assert "library.py" in cuda_registration(dump)  # NVRTC from Python takes its place


@pytest.mark.slow
def test_the_library_holds_one_version_of_the_kernels(prebuilt):
    library = ctypes.CDLL(str(prebuilt))
    library.hough_so3_text_hash.restype = ctypes.c_char_p
    assert library.hough_so3_text_hash().decode() == native.text_hash()
