"""Patches and the loss."""

import pytest
import torch

from visionlab.masking.targets import (
    patch_statistics,
    patchify,
    reconstruction_loss,
    take,
    unpatchify,
)


@pytest.mark.parametrize(
    ("size", "patch", "channels"), [((8, 12), (4, 3), 3), ((6, 6), (2, 2), 1), ((4, 20), (4, 5), 5)]
)
def test_patchify_against_loops_and_back(size, patch, channels):
    images = torch.randn(2, channels, *size)
    patches = patchify(images, patch)
    grid = (size[0] // patch[0], size[1] // patch[1])
    for row in range(grid[0]):
        for column in range(grid[1]):
            p, q = patch
            tile = images[:, :, row * p : (row + 1) * p, column * q : (column + 1) * q]
            expected = tile.permute(0, 2, 3, 1).flatten(1)
            assert torch.equal(patches[:, row * grid[1] + column], expected)
    assert torch.equal(unpatchify(patches, patch, grid), images)


def test_take_gathers_rows_of_a_batch_and_of_one_table():
    tokens, ids = torch.randn(2, 5, 3), torch.tensor([[4, 0], [1, 1]])
    expected = torch.stack([tokens[0, [4, 0]], tokens[1, [1, 1]]])
    assert torch.equal(take(tokens, ids), expected)
    assert torch.equal(take(tokens[:1], ids)[1], tokens[0, [1, 1]])


def test_loss_is_the_published_formula():
    prediction, patches = torch.randn(3, 7, 48), torch.randn(3, 7, 48) * 4 + 2
    mean = patches.mean(-1, keepdim=True)
    variance = patches.var(-1, keepdim=True)  # unbiased
    target = (patches - mean) / (variance + 1e-6) ** 0.5
    expected = ((prediction - target) ** 2).mean(-1).mean()
    torch.testing.assert_close(reconstruction_loss(prediction, patches, norm_pix=True), expected)
    expected = ((prediction - patches) ** 2).mean()
    torch.testing.assert_close(reconstruction_loss(prediction, patches, norm_pix=False), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_is_float32_for_half_precision_predictions(dtype):
    prediction, patches = torch.randn(3, 7, 48).to(dtype), torch.randn(3, 7, 48) * 300
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = reconstruction_loss(prediction, patches, norm_pix=True)
    assert loss.dtype == torch.float32
    expected = reconstruction_loss(prediction.double().float(), patches, norm_pix=True)
    assert loss == expected


def test_a_constant_patch_has_a_finite_target():
    mean, deviation = patch_statistics(torch.full((1, 1, 12), 3.0))
    assert mean == 3
    assert deviation == pytest.approx(1e-3)
    assert (
        reconstruction_loss(torch.zeros(1, 1, 12), torch.full((1, 1, 12), 3.0), norm_pix=True) == 0
    )
