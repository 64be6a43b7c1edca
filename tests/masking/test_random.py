"""Random masks: every patch is as likely to stay as any other, and so is every pair."""

import torch

from visionlab.masking import create_mask


def test_patches_and_pairs_stay_as_often_as_chance_says():
    draws, patches, keep = 20_000, 12, 3
    mask = create_mask("random", (3, 4), ratio=0.75)
    seen = (~mask(draws, key=(0, 0, 0)).mask).double()
    share = keep / patches
    deviation = (share * (1 - share) / draws) ** 0.5
    assert (seen.mean(0) - share).abs().max() < 4 * deviation
    together = (seen.T @ seen / draws)[~torch.eye(patches, dtype=torch.bool)]
    share = keep * (keep - 1) / (patches * (patches - 1))
    deviation = (share * (1 - share) / draws) ** 0.5
    assert (together - share).abs().max() < 5 * deviation
