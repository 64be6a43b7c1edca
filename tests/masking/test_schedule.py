"""Schedules of colour and ratio."""

import numpy as np
import pytest
import torch

from visionlab.masking import create_mask
from visionlab.masking.noise import covariance

STAGES = [
    {"epoch": 0, "name": "red"},
    {"epoch": 10, "name": "green"},
    {"epoch": 30, "name": "blue"},
]


def test_stages_change_at_their_epoch():
    mask = create_mask("schedule", (14, 14), stages=STAGES)
    kinds = [mask.at(e).spectrum.describe()["kind"] for e in (0, 9.9, 10, 29, 30, 1000)]
    assert kinds == ["red", "red", "green", "green", "blue", "blue"]
    red = create_mask("red", (14, 14))
    assert torch.equal(mask(4, key=(0,), epoch=5).mask, red(4, key=(0,)).mask)


def test_any_strategies_can_be_stages():
    stages = [{"epoch": 0, "name": "block", "aspect": 0.5}, {"epoch": 4, "name": "random"}]
    mask = create_mask("schedule", (14, 14), 0.6, stages=stages)
    assert type(mask.at(3)).__name__ == "BlockMask"
    assert mask.at(3).aspect == 0.5
    assert (mask.at(3).ratio, mask.at(4).ratio) == (0.6, 0.6)


def test_linear_transition_blends_the_covariance():
    mask = create_mask("schedule", (5, 6), stages=STAGES, transition="linear")
    for epoch, share in ((0, 0.0), (3, 0.3), (9, 0.9)):
        got = covariance(mask.at(epoch).spectrum, (5, 6))
        red = covariance(create_mask("red", (5, 6)).spectrum, (5, 6))
        green = covariance(create_mask("green", (5, 6)).spectrum, (5, 6))
        np.testing.assert_allclose(got, (1 - share) * red + share * green, atol=1e-9)
    assert mask.at(35).spectrum.describe()["kind"] == "blue"


def test_ratio_curves():
    def ratios(curve):
        mask = create_mask(
            "schedule", (20, 20), 0.9, stages=STAGES, ratio_end=0.5, curve=curve, epochs=40
        )
        return [round(mask.ratio_at(e), 4) for e in (0, 10, 20, 40, 99)], mask

    assert ratios("linear")[0] == [0.9, 0.8, 0.7, 0.5, 0.5]
    assert ratios("cosine")[0] == [0.9, 0.8414, 0.7, 0.5, 0.5]
    assert ratios("constant")[0] == [0.9] * 5
    mask = ratios("linear")[1]
    assert mask(3, key=(0,), epoch=20).ids_keep.shape == (3, 120)
    assert mask(3, key=(0,), epoch=20.7).ids_keep.shape == (3, 120)  # fixed within an epoch
    assert mask(3, key=(0,), epoch=40).ids_keep.shape == (3, 200)


def test_no_state_any_order_gives_the_same_masks():
    """What a resumed run needs."""

    def make():
        return create_mask(
            "schedule", (14, 14), stages=STAGES, transition="linear", ratio_end=0.6, epochs=40
        )

    straight, resumed = make(), make()
    forward = {e: straight(4, key=(0, 0, e), epoch=e).mask for e in range(40)}
    for epoch in (39, 17, 3, 25):
        assert torch.equal(forward[epoch], resumed(4, key=(0, 0, epoch), epoch=epoch).mask)


def test_constant_ratio_uses_the_schedules_own():
    mask = create_mask("schedule", (14, 14), 0.6, stages=[{"epoch": 0, "name": "green"}])
    assert mask(2, key=0, epoch=0).ids_keep.shape == (2, 196 - 118)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": []}, "first stage begins at epoch 0"),
        ({"stages": [{"epoch": 3, "name": "red"}]}, r"first stage begins at epoch 0, .* \[3\]"),
        ({"stages": [*STAGES, {"epoch": 30, "name": "red"}]}, "must increase"),
        ({"stages": [{"name": "red"}]}, "a stage names its 'epoch' and its mask"),
        ({"stages": [{"epoch": 0, "name": "rde"}]}, "no mask 'rde'. Did you mean 'red'"),
        ({"stages": STAGES, "transition": "jump"}, "transition is 'step' or 'linear'"),
        ({"stages": STAGES, "curve": "steep"}, "curve is 'constant', 'linear' or 'cosine'"),
        ({"stages": STAGES, "ratio_end": 0.5}, "ratio_end needs epochs"),
        ({"stages": STAGES, "ratio_end": 1.5, "epochs": 9}, "hidden share"),
        ({"stages": STAGES, "ratio_end": 0.999, "epochs": 9}, "leaves no patch visible"),
        ({"stages": [{"epoch": 0, "name": "block"}, {"epoch": 1, "name": "red"}],
          "transition": "linear"}, "a linear transition blends colours"),
    ],
)  # fmt: skip
def test_refusals_are_sentences(options, message):
    with pytest.raises(ValueError, match=message):
        create_mask("schedule", (14, 14), **options)


def test_the_epoch_is_needed():
    mask = create_mask("schedule", (14, 14), stages=STAGES)
    with pytest.raises(ValueError, match=r"pass epoch=\.\.\. when drawing"):
        mask(2, key=(0,))
    with pytest.raises(ValueError, match=r"call at\(epoch\) first"):
        mask.scores(None)
