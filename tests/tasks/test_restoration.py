"""Restoring with a network trained for no time: the bookkeeping must be right, not the pictures."""

import argparse
import csv
import warnings
from pathlib import Path

import pytest
import torch

from tests.proximal.closed_form import QuadraticProx
from visionlab import checkpoint
from visionlab.proximal import LearnedProximalNetwork
from visionlab.tasks import certification, restoration
from visionlab.tasks.restoration_problems import (
    PROBLEMS,
    Method,
    classical_methods,
    geometric,
    learned_methods,
    make_problem,
    psnr,
)

# torch itself calls torch.jit.script when forward-mode differentiation is first used
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
SIZE = 24
ARGUMENTS = {"in_channels": 1, "hidden": 4, "strides": [1, 2], "noise_level": 0.1}


def smooth(count: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 6, 6, generator=generator)
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = LearnedProximalNetwork(**ARGUMENTS)
    checkpoint.save_model(
        net, tmp_path / "net.ckpt", {"name": "learned_proximal_network"} | ARGUMENTS
    )
    return tmp_path / "net.ckpt"


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


def test_compare_scores_every_method_with_its_theorem() -> None:
    problem = make_problem("blur1", (1, SIZE, SIZE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = restoration.compare(
            problem, QuadraticProx(0.9), validation=smooth(2), test=smooth(13, seed=1),
            iterations=6,
        )  # fmt: skip
    theorem = {row["method"]: row["theorem"] for row in result.rows}
    assert theorem == {
        "input": "", "Wiener": "", "TV": "",
        "LPN, mirror descent": "yes", "LPN, ADMM": "no", "LPN, ADMM relaxed": "yes",
    }  # fmt: skip
    for row in result.rows:
        restored = result.images[row["method"]]
        assert row["PSNR"] == pytest.approx(
            float(psnr(restored, smooth(13, seed=1)).mean()), abs=0.01
        )
    # 13 images go through in chunks of 12; the noise of an image must not depend on that
    traces = restoration.convergence(result, smooth(3, seed=1), iterations=30)
    assert set(traces) == {"LPN, mirror descent", "LPN, ADMM", "LPN, ADMM relaxed"}
    rows = restoration.convergence_rows("blur1", traces)
    assert all(row["best PSNR"] >= row["last PSNR"] and row["iterations"] <= 30 for row in rows)
    rise = {row["method"]: row["largest rise"] for row in rows}
    assert max(rise["LPN, mirror descent"], rise["LPN, ADMM relaxed"]) < 1e-4


def test_compressed_sensing_starts_from_total_variation() -> None:
    problem = make_problem("cs4", (1, SIZE, SIZE))
    result = restoration.compare(
        problem, QuadraticProx(0.99), validation=smooth(1), test=smooth(2, seed=1),
        iterations=2, solvers=["mirror"],
    )  # fmt: skip
    assert list(result.images)[-1] == "LPN, mirror descent, from TV"
    y = result.problem.measure(smooth(2), seed=0)
    start = result.problem.start
    assert start is not None
    assert start(y) is start(y)
    assert psnr(start(y), smooth(2)).mean() > psnr(problem.physics.initial(y), smooth(2)).mean() + 3


def test_a_network_trained_over_a_range_is_tried_at_several_levels() -> None:
    torch.manual_seed(0)
    net = LearnedProximalNetwork(1, 4, strides=(1, 2), noise_level=(0.02, 0.2), conditioned=True)
    levels = restoration.default_levels(net)
    assert levels == pytest.approx([0.2, 0.134, 0.09, 0.06])
    problem = make_problem("blur1", (1, SIZE, SIZE))
    (method,) = learned_methods(problem, net, levels=levels, factors=[1.0], iterations=2,
                                solvers=["mirror"])  # fmt: skip
    assert [s["weight"] for s in method.grid] == pytest.approx([(0.02 / s) ** 2 for s in levels])
    assert method.run(smooth(1), problem, method.grid[0], None).x.shape == (1, 1, SIZE, SIZE)


def test_geometric_grid() -> None:
    assert geometric(0.01, 1.0, 3) == pytest.approx([0.01, 0.1, 1.0])


def parse(module, *arguments: str) -> argparse.Namespace:  # type: ignore[no-untyped-def]
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(list(arguments))


def test_restore_command_writes_table_panel_and_curves(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    restoration.run(parse(restoration, str(saved), "--problems", "blur1", "--size", str(SIZE),
                          "--crops", "2", "2", "--iterations", "3", "--long", "4",
                          "--solvers", "mirror"))  # fmt: skip
    printed = capsys.readouterr().out
    assert "2 validation and 2 test crops of 24 x 24" in printed
    assert "LPN, mirror descent" in printed
    folder = saved.parent / "restore"
    with (folder / "restoration.csv").open() as file:
        methods = [row["method"] for row in csv.DictReader(file)]
    assert methods == ["input", "Wiener", "TV", "LPN, mirror descent"]
    for name in ("blur1.png", "blur1_convergence.png", "convergence.csv"):
        assert (folder / name).stat().st_size > 50


def test_restore_messages(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must not be chosen on the pictures that are scored"):
        restoration.run(parse(restoration, str(saved), "--test", "x", "--validation", "x"))
    with pytest.raises(ValueError, match=r"no problem 'blur3'. Did you mean 'blur"):
        make_problem("blur3", (1, 32, 32))
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        restoration.load_prox(tmp_path / "gone.ckpt")
    with pytest.raises(ValueError, match="does not say what noise it was trained on"):
        list(learned_methods(make_problem("blur1", (1, 32, 32)), QuadraticProx(noise_level=None)))


def test_certify_command_reports_and_returns_its_verdict(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert certification.run(parse(certification, str(saved), "--sizes", "13x17", "8x8")) == 0
    printed = capsys.readouterr().out
    assert printed.count("HOLDS") == 2
    assert "(2, 1, 13, 17) in float64" in printed
    assert "every check holds" in printed
    with pytest.raises(ValueError, match="a size is HxW in pixels, such as 37x53; got '37'"):
        certification.run(parse(certification, str(saved), "--sizes", "37"))


def test_certify_command_fails_on_damaged_weights(
    saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = restoration.load_prox(saved)
    for name, weight in net.named_parameters():
        if "heads" in name:
            weight.data.fill_(-1.0)
    monkeypatch.setattr(restoration, "load_prox", lambda path: net)
    assert certification.run(parse(certification, str(saved), "--sizes", "12x12")) == 1
    printed = capsys.readouterr().out
    assert "FAILS" in printed
    assert "a weight that must be nonnegative is -1" in printed
