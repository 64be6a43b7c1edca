import pytest
import torch

from tests.proximal.closed_form import QuadraticProx
from tests.tasks.restoration_fixture import SIZE, smooth
from visionlab.tasks.restoration_problems import (
    PROBLEMS,
    Method,
    classical_methods,
    geometric,
    learned_methods,
    make_problem,
    psnr,
)


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_measures_reproducibly_and_image_by_image(name: str) -> None:
    problem = make_problem(name, (1, 48, 48))
    x = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    y = problem.measure(x, seed=1)
    assert torch.equal(y, problem.measure(x, seed=1))
    torch.testing.assert_close(problem.measure(x[:1], seed=1), y[:1])
    noise = (y - problem.physics(x)).std()
    assert float(noise) == pytest.approx(problem.noise, rel=0.15)


def test_psnr_by_hand() -> None:
    assert psnr(torch.full((1, 1, 2, 2), 0.6), torch.full((1, 1, 2, 2), 0.5)) == pytest.approx(20.0)


def test_settings_and_the_iteration_are_chosen_on_validation_images() -> None:
    """A method that reaches the clean image at iteration 3 with weight 2, and overshoots."""
    problem, clean = make_problem("blur1", (1, SIZE, SIZE)), smooth(2)

    def run(y, problem, setting, callback):  # type: ignore[no-untyped-def]
        for k in range(int(setting.get("iterations", 6))):
            x = clean + abs(setting["weight"] - 2) + abs(k - 2) * 0.1 + 0.01
            callback and callback(k, x)
        return x

    method = Method("m", [{"weight": w} for w in (1.0, 2.0, 3.0)], run)
    top = method.choose(problem.measure(clean, seed=0), clean, problem)
    assert method.chosen == {"weight": 2.0, "iterations": 3}
    assert top == pytest.approx(40.0, abs=1e-3)
    assert not method.at_edge()
    again = method.run(problem.measure(clean, seed=0), problem, method.chosen, None)
    assert psnr(again, clean).mean() == pytest.approx(40.0, abs=1e-3)
    method.chosen = {"weight": 3.0}
    assert method.at_edge()


@pytest.mark.parametrize("name", ["blur1", "tomography", "cs4", "denoise", "inpainting"])
def test_baselines_fit_the_problem(name: str) -> None:
    problem = make_problem(name, (1, SIZE, SIZE))
    names = [m.name for m in classical_methods(problem, smooth(3))]
    assert "TV" in names
    assert ("Wiener" in names) == (name == "blur1")
    assert ("FBP (Hann)" in names) == (name == "tomography")
    assert ("least squares" in names) == (name in ("tomography", "cs4"))


def test_geometric_grid() -> None:
    assert geometric(0.01, 1.0, 3) == pytest.approx([0.01, 0.1, 1.0])


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"no problem 'blur3'. Did you mean 'blur"):
        make_problem("blur3", (1, 32, 32))
    with pytest.raises(ValueError, match="does not say what noise it was trained on"):
        list(learned_methods(make_problem("blur1", (1, 32, 32)), QuadraticProx(noise_level=None)))
