"""Published noise banks."""

import numpy as np
import pytest
import torch

from visionlab.masking import create_mask
from visionlab.masking.bank import load_bank
from visionlab.masking.keys import GeneratorDraws


def test_windows_give_the_official_top_k(bank_path):
    """The official rule, in NumPy: crop, flip, divide by the maximum, argsort, keep the first."""
    mask = create_mask("bank", (14, 14), path=bank_path)
    masks = mask(40, key=(1, 2, 3))
    windows = mask.windows(GeneratorDraws((1, 2, 3), 40, torch.device("cpu"))).tolist()
    bank = np.load(bank_path)["arr_0"]
    for hidden, (picture, row, column, flip_rows, flip_columns) in zip(masks.mask, windows):
        window = bank[picture, row : row + 14, column : column + 14]
        window = window[::-1] if flip_rows else window
        window = window[:, ::-1] if flip_columns else window
        keep = np.argsort(-(window / window.max()).ravel())[:49]
        assert set(np.flatnonzero(~hidden.numpy())) == set(keep)


def test_every_image_takes_its_own_window(bank_path):
    mask = create_mask("bank", (14, 14), path=bank_path)
    windows = mask.windows(GeneratorDraws((0,), 3000, torch.device("cpu")))
    n, rows, columns = mask.bank.shape
    spans = [(0, n - 1), (0, rows - 14), (0, columns - 14), (0, 1), (0, 1)]
    for values, (low, high) in zip(windows.unbind(1), spans):
        assert (values.min(), values.max()) == (low, high)


def test_smallest_values_on_request(bank_path):
    largest = create_mask("bank", (70, 72), 0.75, path=bank_path)(4, key=(0,)).mask
    smallest = create_mask("bank", (70, 72), 0.75, path=bank_path, keep="smallest")(
        4, key=(0,)
    ).mask
    assert not (~largest & ~smallest).any()


def test_negative_noise_keeps_its_order(tmp_path):
    """The published division by the maximum would reverse the order of a negative window."""
    noise = -np.random.default_rng(0).random((1, 4, 4)).astype(np.float32) - 1
    np.savez(tmp_path / "b.npz", noise)
    visible = create_mask("bank", (4, 4), 0.75, path=tmp_path / "b.npz")(1, key=(0,)).visible[0]
    assert sorted(noise[0].ravel())[-4:] == sorted(
        max((noise[0][:: 1 - 2 * a, :: 1 - 2 * b] for a in (0, 1) for b in (0, 1)),
            key=lambda w: w[visible.numpy()].sum())[visible.numpy()]
    )  # fmt: skip


def test_integer_noise_breaks_ties_at_random(tmp_path):
    np.savez(tmp_path / "b.npz", np.zeros((1, 8, 8), np.uint8))
    rate = create_mask("bank", (8, 8), path=tmp_path / "b.npz")(4000, key=(0,)).visible.double()
    assert (rate.mean(0) - 0.25).abs().max() < 0.035


def test_plain_arrays_load_too(tmp_path):
    np.save(tmp_path / "b.npy", np.random.default_rng(0).random((2, 9, 9)))
    assert load_bank(tmp_path / "b.npy").shape == (2, 9, 9)


def _save(path, array):
    np.savez(path, array)
    return path


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: p / "none.npz", FileNotFoundError, "no noise bank at .* or use a generated"),
        (lambda p: _save(p / "h.npz", np.zeros((2, 9, 9), np.float16)), TypeError,
         "float32, float64 or integers, got float16 .* ties"),
        (lambda p: _save(p / "b.npz", np.zeros((2, 9, 9), bool)), TypeError, "got bool"),
        (lambda p: _save(p / "s.npz", np.zeros((9, 9))), ValueError, r"\(n, M, N\), got \(9, 9\)"),
        (lambda p: _save(p / "e.npz", np.zeros((0, 9, 9))), ValueError, r"got \(0, 9, 9\)"),
        (lambda p: _save(p / "n.npz", np.full((2, 9, 9), np.nan)), ValueError, "holds NaN"),
        (lambda p: _save(p / "t.npz", np.zeros((2, 3, 9))), ValueError, "3x9 pictures is too"),
    ],
)  # fmt: skip
def test_refusals_are_sentences(tmp_path, make, error, message):
    with pytest.raises(error, match=message):
        create_mask("bank", (8, 8), path=make(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no numpy", b"PK\x03\x04 cut"])
def test_broken_files(tmp_path, content):
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"no readable \.npz or \.npy file"):
        create_mask("bank", (8, 8), path=path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_byte_turned_anywhere_is_told_or_harmless(tmp_path, save):
    path, noise = tmp_path / "bank.npz", np.random.default_rng(0).normal(size=(1, 8, 8))
    save(path, noise)
    data = path.read_bytes()
    for place in range(0, len(data), 3):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x11]) + data[place + 1 :])
        try:
            assert np.array_equal(load_bank(path), noise)
        except ValueError as error:
            assert "bank.npz" in str(error)  # noqa: PT017


def test_unknown_side(bank_path):
    with pytest.raises(ValueError, match="keep is 'largest' or 'smallest', got 'middle'"):
        create_mask("bank", (8, 8), path=bank_path, keep="middle")
