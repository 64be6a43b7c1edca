"""Input-dependent masks."""

import pytest
import torch

from visionlab.masking import ScoreMask, create_mask


def brightness(images):
    return images.mean(1)  # (B, rows, columns) of images already at the size of the grid


IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_weight_one_follows_the_scores_alone():
    mask = ScoreMask((8, 8), score_fn=brightness, weight=1.0)
    visible = mask(6, key=(0,), images=IMAGES).visible.flatten(1)
    scores = brightness(IMAGES).flatten(1)
    for shown, score in zip(visible, scores):
        assert score[shown].min() > score[~shown].max()


def test_weight_zero_follows_the_noise_alone():
    green = create_mask("green", (8, 8))
    mask = ScoreMask((8, 8), score_fn=brightness, weight=0.0, noise=green)
    assert torch.equal(mask(6, key=(2,), images=IMAGES).mask, green(6, key=(2,)).mask)


def test_in_between_visible_patches_are_brighter_than_average_and_random():
    mask = ScoreMask((8, 8), score_fn=brightness, weight=0.5)
    shown = torch.stack([mask(6, key=(k,), images=IMAGES).visible for k in range(50)])
    gain = (brightness(IMAGES) * shown).sum() / shown.sum()
    best = brightness(IMAGES).flatten(1).topk(16, 1).values.mean()
    assert 0.2 * best < gain < 0.95 * best
    assert not torch.equal(shown[0], shown[1])


def test_constant_scores_leave_the_noise():
    mask = ScoreMask((8, 8), score_fn=lambda x: torch.zeros(len(x), 64))
    assert (mask(6, key=(0,), images=IMAGES).mask.sum(1) == 48).all()


def test_scores_get_no_gradient():
    weight = torch.ones((), requires_grad=True)
    seen = []

    def score(images):
        scores = brightness(images) * weight
        seen.append(scores.requires_grad)
        return scores

    ScoreMask((8, 8), score_fn=score)(6, key=(0,), images=IMAGES)
    assert seen == [False]


@pytest.mark.parametrize(
    ("score_fn", "error", "message"),
    [
        (lambda x: x.mean(1).half(), TypeError, "need float32 or float64, got torch.float16"),
        (lambda x: x.mean(1).bfloat16(), TypeError, "got torch.bfloat16"),
        (lambda x: x, ValueError, r"scores of shape \(6, 64\) or \(6, 8, 8\), got \(6, 3, 8, 8\)"),
        (lambda x: x.mean(1) / 0, ValueError, "must be finite"),
    ],
)
def test_wrong_scores(score_fn, error, message):
    with pytest.raises(error, match=message):
        ScoreMask((8, 8), score_fn=score_fn)(6, key=(0,), images=IMAGES)


def test_refusals_are_sentences():
    with pytest.raises(ValueError, match=r"pass images=\.\.\. when drawing"):
        ScoreMask((8, 8), score_fn=brightness)(6, key=(0,))
    with pytest.raises(TypeError, match="score_fn is a function"):
        ScoreMask((8, 8), score_fn=3)
    with pytest.raises(ValueError, match=r"weight of the scores lies in \[0, 1\], got 2"):
        ScoreMask((8, 8), score_fn=brightness, weight=2)
