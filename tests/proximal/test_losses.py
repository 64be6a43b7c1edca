import math

import pytest
import torch

from visionlab.proximal import proximal_matching_loss
from visionlab.proximal.losses import ProximalMatchingSchedule, denoising_loss


def test_by_hand():
    target = torch.zeros(2, 1, 2, 2)
    prediction = torch.stack([torch.full((1, 2, 2), 0.1), torch.full((1, 2, 2), 0.2)])
    expected = 1 - (math.exp(-1) + math.exp(-4)) / 2
    assert proximal_matching_loss(prediction, target, 0.1).item() == pytest.approx(expected)
    each = torch.tensor([0.1, 0.2])
    expected = 1 - math.exp(-1)
    assert proximal_matching_loss(prediction, target, each).item() == pytest.approx(expected)


def test_gamma_means_the_same_at_every_size():
    residuals = [torch.full((1, 1, n, n), 0.3) for n in (4, 64)]
    small, large = (proximal_matching_loss(r, torch.zeros_like(r), 0.4) for r in residuals)
    assert small.item() == pytest.approx(large.item(), rel=1e-5)


def test_wide_gamma_is_a_scaled_square():
    r = torch.randn(3, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    loss = proximal_matching_loss(r, torch.zeros_like(r), 1e3)
    assert loss.item() == pytest.approx(r.square().mean().item() / 1e6, rel=1e-3)


def test_losses_in_units_of_the_noise_do_not_change_with_its_scale():
    r = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    zero, sigma = torch.zeros_like(r), torch.tensor([0.1, 0.1])
    for name in ("l1", "l2", "proximal_matching"):
        one = denoising_loss(0.1 * r, zero, name, gamma=0.8, sigma=sigma)
        ten = denoising_loss(1.0 * r, zero, name, gamma=0.8, sigma=10 * sigma)
        assert one.item() == pytest.approx(ten.item(), rel=1e-4)


def test_plain_losses():
    r = torch.tensor([[1.0, -3.0]])
    assert denoising_loss(r, 0 * r, "l1").item() == 2.0
    assert denoising_loss(r, 0 * r, "l2").item() == 5.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: proximal_matching_loss(x, x[:1], 0.1), "must have the same shape"),
        (lambda x: proximal_matching_loss(x, x, 0.0), "gamma must be positive"),
        (lambda x: denoising_loss(x, x, "l3"), "loss is 'l1', 'l2' or 'proximal_matching'"),
        (lambda x: denoising_loss(x, x, "proximal_matching"), "needs gamma"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 3))


class TestSchedule:
    def test_stages_in_turn(self):
        plan = ProximalMatchingSchedule(pretrain_share=0.6, warmup=0.0)
        assert plan.at(0.0).loss == plan.at(0.599).loss == "l1"
        assert [plan.at(0.6 + 0.1 * k + 0.05).gamma for k in range(4)] == [0.64, 0.32, 0.16, 0.08]
        assert plan.at(1.0).gamma == 0.08
        assert plan.at(0.0).lr_factor == pytest.approx(1.0)
        assert plan.at(0.5999).lr_factor == pytest.approx(0.1, rel=1e-3)
        assert plan.at(0.7).lr_factor == 0.1

    def test_pretraining_alone(self):
        plan = ProximalMatchingSchedule(pretrain="l2", pretrain_share=1.0, gammas=())
        assert plan.at(1.0).loss == "l2"

    def test_matching_alone_and_factor_per_stage(self):
        plan = ProximalMatchingSchedule(
            pretrain_share=0.0, gammas=(0.5, 0.1), lr_factors=(1.0, 0.2), warmup=0.0
        )
        assert [plan.at(p).lr_factor for p in (0.1, 0.9)] == [1.0, 0.2]

    def test_warm_up(self):
        plan = ProximalMatchingSchedule(warmup=0.1)
        assert plan.at(0.0).lr_factor < 0.02
        assert plan.at(0.05).lr_factor == pytest.approx(0.5, abs=0.03)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"pretrain": "l0"}, "pretrain is 'l1' or 'l2'"),
            ({"pretrain_share": 1.5}, r"pretrain_share must lie in \[0, 1\]"),
            ({"gammas": ()}, "gammas must be positive"),
            ({"lr_factors": (0.1, 0.2)}, "one per gamma: 4, got 2"),
        ],
    )
    def test_wrong_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            ProximalMatchingSchedule(**options)
