"""The bridge to deepinv, run where deepinv is installed: same operators, same iterates."""

import warnings

import pytest
import torch

from tests.proximal.closed_form import BumpProx
from visionlab.proximal import LearnedProximalNetwork, pnp_admm, pnp_pgd
from visionlab.proximal.physics import (
    CircularBlur,
    Inpainting,
    Tomography,
    ValidBlur,
    add_noise,
    gaussian_kernel,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # raised while deepinv and its dependencies are imported
    deepinv = pytest.importorskip("deepinv", reason="the extra 'deepinv' is not installed")
    from visionlab.proximal.deepinv import DeepinvPhysics, LPNDenoiser, LPNPrior

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SIZE = 24
KERNEL = gaussian_kernel(1.0)
ASYMMETRIC = torch.rand(5, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def image(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kernel", [KERNEL, ASYMMETRIC], ids=["gaussian", "asymmetric"])
def test_blurs_agree(kernel: torch.Tensor) -> None:
    x, taps = image(), kernel.float()[None, None]
    pairs = [
        (CircularBlur(kernel), deepinv.physics.BlurFFT((1, SIZE, SIZE), taps)),
        (ValidBlur(kernel), deepinv.physics.Blur(taps, padding="valid")),
    ]
    for ours, theirs in pairs:
        y = ours(x)
        torch.testing.assert_close(y, theirs.A(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.adjoint(y), theirs.A_adjoint(y), rtol=1e-4, atol=1e-5)


def test_inpainting_agrees() -> None:
    mask = torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(1)) < 0.5
    theirs = deepinv.physics.Inpainting((1, SIZE, SIZE), mask=mask[None].float())
    torch.testing.assert_close(Inpainting(mask)(image()), theirs.A(image()))


def test_tomography_agrees_up_to_interpolation() -> None:
    """They rotate the image bilinearly, we follow Joseph: the same integrals, other rounding."""
    t = torch.arange(SIZE) - (SIZE - 1) / 2
    bump = torch.exp(-((t[:, None] - 2) ** 2 + (t[None] + 3) ** 2) / 18)[None, None]
    theirs = deepinv.physics.Tomography(6, SIZE, circle=False, normalize=False).A(bump)
    ours = Tomography(SIZE, angles=6, normalize=False)(bump)
    # (B, C, detectors, angles) there; compare each view by its total and its largest integral
    torch.testing.assert_close(theirs.sum(-2), ours.sum(-1), rtol=0.02, atol=0.05)
    torch.testing.assert_close(theirs.amax(-2), ours.amax(-1), rtol=0.03, atol=0.05)


def test_their_operator_in_our_solver_is_ours() -> None:
    ours = CircularBlur(KERNEL)
    theirs = DeepinvPhysics(
        deepinv.physics.BlurFFT((1, SIZE, SIZE), KERNEL.float()[None, None]), (1, SIZE, SIZE)
    )
    y = add_noise(ours(image()), 0.02, generator=torch.Generator().manual_seed(1))
    a, b = (
        pnp_admm(y, p, BumpProx(), 1.5, iterations=20, tolerance=0, start=y) for p in (ours, theirs)
    )
    torch.testing.assert_close(a.x, b.x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(a.objective, b.objective, rtol=1e-4, atol=1e-3)
    assert ours.norm2((1, SIZE, SIZE)) <= theirs.norm2((1, SIZE, SIZE)) * (1 + 1e-6)


@pytest.mark.parametrize("solver", ["admm", "pgd"])
def test_their_solver_with_our_prior_makes_our_iterates(solver: str) -> None:
    """Equal images need equal weight, start and order of steps.

    Our ADMM is theirs with ``g_first``, seen half an iteration later: what they would feed to the
    prox next, x - z, is our output once through the prox.
    """
    weight, steps = 1.3, 15
    their_physics = deepinv.physics.BlurFFT((1, SIZE, SIZE), KERNEL.float()[None, None])
    ours = CircularBlur(KERNEL)
    y = add_noise(ours(image()), 0.02, generator=torch.Generator().manual_seed(1))
    net = BumpProx()
    common = {
        "data_fidelity": deepinv.optim.L2(),
        "prior": LPNPrior(net, explicit_prior=False),
        "lambda_reg": weight,
        "stepsize": 1 / weight,
        "max_iter": steps,
        "early_stop": False,
        "custom_init": lambda y, physics: {"est": (y, torch.zeros_like(y))},
    }
    options = {"iterations": steps, "tolerance": 0}
    if solver == "admm":
        theirs = deepinv.optim.ADMM(
            **common, g_first=True, get_output=lambda X: net(X["est"][0] - X["est"][1])
        )(y, their_physics)
        mine = pnp_admm(y, ours, net, weight, start=net(y), **options)
    else:
        theirs = deepinv.optim.PGD(**common)(y, their_physics)
        mine = pnp_pgd(y, ours, net, 1 / weight, start=y, **options)
    torch.testing.assert_close(theirs, mine.x, rtol=1e-4, atol=1e-4)


def test_prior_reads_r_off_its_last_output() -> None:
    net = BumpProx()
    prior = LPNPrior(net)
    out = prior.prox(image(), gamma=1.0)
    expected_image, expected = net.prior_of_output(image())
    assert torch.equal(out, expected_image)
    assert torch.equal(prior.fn(out), expected)


def test_prior_elsewhere_is_inverted_for() -> None:
    torch.manual_seed(0)
    net = LearnedProximalNetwork(1, 4, strides=(1, 2), alpha=0.2, beta=10.0).double()
    v = image().double()
    out, expected = net.prior_of_output(v)
    torch.testing.assert_close(LPNPrior(net).fn(out.clone()), expected, rtol=1e-4, atol=1e-4)


def test_denoiser_takes_the_level_where_the_network_does() -> None:
    torch.manual_seed(0)
    net = LearnedProximalNetwork(1, 4, strides=(1, 2), noise_level=(0.02, 0.2), conditioned=True)
    torch.testing.assert_close(LPNDenoiser(net)(image(), 0.1), net(image(), 0.1))
    plain = LPNDenoiser(BumpProx(noise_level=0.1))
    assert torch.equal(plain(image(), 0.1), BumpProx()(image()))
    with pytest.warns(
        UserWarning, match=r"removes noise of 0\.1 and ignores the level asked for, 0.3"
    ):
        plain(image(), 0.3)


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"asked for step 0.5: for weight w set lambda_reg=w"):
        LPNPrior(BumpProx()).prox(image(), gamma=0.5)
    with pytest.raises(NotImplementedError, match="needs an inversion"):
        LPNPrior(BumpProx()).grad(image())
    for bridge in (LPNDenoiser, LPNPrior):
        with pytest.raises(TypeError, match=r"expected an exact prox .* got Identity"):
            bridge(torch.nn.Identity())
    with pytest.raises(TypeError, match="expected a deepinv LinearPhysics, got Linear"):
        DeepinvPhysics(torch.nn.Linear(1, 1), (1, 4, 4))
    wrong = deepinv.physics.LinearPhysics(A=lambda x: 2 * x, A_adjoint=lambda y: y)
    with pytest.raises(ValueError, match=r"not the transpose of the operator: .* is off by"):
        DeepinvPhysics(wrong, (1, 8, 8))
