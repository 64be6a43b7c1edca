"""NumPy archives: arrays as they were, or one sentence."""

import numpy as np
import pytest

from visionlab.npz_files import read_npz

ARRAYS = {"x": np.arange(48.0).reshape(6, 8), "y": np.arange(5, dtype=np.uint8)}


def read(path):
    with read_npz(path) as arrays:
        return dict(arrays)


@pytest.fixture(params=[np.savez, np.savez_compressed])
def path(request, tmp_path):
    request.param(tmp_path / "a.npz", **ARRAYS)
    return tmp_path / "a.npz"


def test_arrays_come_back(path):
    found = read(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    with read_npz(path) as arrays:
        assert "z" not in arrays
        assert len(arrays) == 2


def test_a_byte_turned_anywhere_is_told_or_harmless(path):
    """``np.load`` passes some of these as arrays of another shape."""
    data, told = path.read_bytes(), 0
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x11]) + data[place + 1 :])
        try:
            found = read(path)
        except ValueError as error:
            assert str(error).startswith(f"{path} is damaged")  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            told += 1
            continue
        for name in found.keys() & ARRAYS.keys():  # a name may change in the list of the archive
            np.testing.assert_array_equal(found[name], ARRAYS[name], strict=True)
    assert told > len(data) / 2


@pytest.mark.parametrize("kept", [0, 3, 200, -1])
def test_a_cut_archive_is_no_archive(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"a\.npz is damaged or no \.npz archive"):
        read(path)


def test_a_single_array_is_no_archive(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"no \.npz archive"):
        read(tmp_path / "a.npy")


def test_objects_are_not_read(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"holds Python objects, which are not read.*allow_pickle"):
        read(tmp_path / "a.npz")


def test_errors_of_the_reader_pass_as_they_are(path):
    with pytest.raises(KeyError, match="z"), read_npz(path) as arrays:
        arrays["z"]
    with pytest.raises(FileNotFoundError):
        read(path.with_name("gone.npz"))


def test_a_header_that_claims_fewer_rows_is_found(tmp_path):
    """``np.load`` gives the first 100 rows, and compares no checksum."""
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((500, 300)))
    path.write_bytes(path.read_bytes().replace(b"(500, 300)", b"(100, 300)"))
    with np.load(path) as found:
        assert found["x"].shape == (100, 300)
    with pytest.raises(ValueError, match="'x' is longer than its header says"):
        read(path)
