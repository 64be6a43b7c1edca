import importlib.util
import json
from pathlib import Path

import pytest
import torch

TOOL = Path(__file__).parents[2] / "tools/benchmark_cuda.py"
spec = importlib.util.spec_from_file_location("benchmark_cuda", TOOL)
benchmark_cuda = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark_cuda)


@pytest.mark.slow
def test_the_table_is_complete(tmp_path, capsys):
    output = tmp_path / "rows.json"
    arguments = ["--device", "cpu", "--frames", "2", "--repeats", "1", "--json", str(output)]
    assert benchmark_cuda.main(arguments) == 0
    rows = json.loads(output.read_text())["cpu"]
    assert [(row["what"], row["lines"], row["frames"]) for row in rows] == [
        ("vote", 576, 1),
        ("vote, answer on the host", 576, 1),
        ("vote", 576, 2),
        ("vote", 5184, 2),
        ("vote", 129600, 2),
        ("lines + vote", 576, 2),
        ("refinement", 5184, 2),
        ("estimate_batch, verdicts included", 5184, 2),
    ]
    assert all(row["microseconds"] > 0 for row in rows)
    assert capsys.readouterr().out.count("| vote |") == 4


def test_wrong_votes_are_not_timed(monkeypatch):
    camera, flows = benchmark_cuda.flows_of(1)
    lines = torch.from_numpy(benchmark_cuda.lines_of(camera, flows, 15))
    benchmark_cuda.check_votes(lines)
    right = benchmark_cuda.op.hough_vote
    monkeypatch.setattr(
        benchmark_cuda.op, "hough_vote", lambda lines, bins: right(lines + 1, bins=bins)
    )
    with pytest.raises(AssertionError):
        benchmark_cuda.check_votes(lines)


def test_a_missing_gpu_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark_cuda.main([]) == 2
    assert "torch sees no CUDA device; --device cpu" in capsys.readouterr().err
