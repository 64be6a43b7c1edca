"""Restoring with a network trained for no time: the bookkeeping must be right, not the pictures."""

import csv
import warnings
from pathlib import Path

import pytest
import torch

from tests.proximal.closed_form import QuadraticProx
from tests.tasks.restoration_fixture import SIZE, parse, save_network, save_vectors, smooth
from visionlab.proximal import LearnedProximalNetwork
from visionlab.tasks import restoration
from visionlab.tasks.restoration_problems import learned_methods, make_problem, psnr


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_network(tmp_path)


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
        "LPN, mirror descent": "yes", "LPN, ADMM": "no", "LPN, ADMM safeguarded": "yes",
    }  # fmt: skip
    for row in result.rows:
        restored = result.images[row["method"]]
        assert row["PSNR"] == pytest.approx(
            float(psnr(restored, smooth(13, seed=1)).mean()), abs=0.01
        )
    # 13 images go through in chunks of 12; the noise of an image must not depend on that
    traces = restoration.convergence(result, smooth(3, seed=1), iterations=30)
    assert set(traces) == {"LPN, mirror descent", "LPN, ADMM", "LPN, ADMM safeguarded"}
    rows = restoration.convergence_rows("blur1", traces)
    assert all(row["best PSNR"] >= row["last PSNR"] and row["iterations"] <= 30 for row in rows)
    rise = {row["method"]: row["largest rise"] for row in rows}
    assert max(rise["LPN, mirror descent"], rise["LPN, ADMM safeguarded"]) < 1e-4


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
    with pytest.raises(ValueError, match=r"no solver 'admmm'. Did you mean 'admm'"):
        restoration.run(parse(restoration, str(saved), "--solvers", "admmm"))
    with pytest.raises(ValueError, match="holds a network of vectors or signals; 'restore' needs"):
        restoration.run(parse(restoration, str(save_vectors(tmp_path))))
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        restoration.load_prox(tmp_path / "gone.ckpt")
    with pytest.raises(ValueError, match="does not say what noise it was trained on"):
        list(learned_methods(make_problem("blur1", (1, 32, 32)), QuadraticProx(noise_level=None)))
