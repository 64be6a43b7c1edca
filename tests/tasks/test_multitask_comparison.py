"""Tables over seeds, read from run folders; a claim is held against the numbers."""

import json

import pytest

from visionlab.figures import markdown_table
from visionlab.tasks.multitask_comparison import (
    comparison_table,
    extension_table,
    information_history,
    last_scores,
    pruning_table,
    surgery_reports,
)

METRICS = {"a": "top1", "b": "ap50"}


def test_last_scores_of_several_runs(tmp_path):
    for name, metric, value in (("one", "a_top1", 40.0), ("two", "b_ap50", 20.0)):
        (tmp_path / name).mkdir()
        rows = ["step,metric,value", f"9,val/{metric},1", f"19,val/{metric},{value}"]
        rows += ["19,train/information_normalised,0.75"] if name == "one" else []
        (tmp_path / name / "metrics.csv").write_text("\n".join(rows) + "\n")
    folders = [tmp_path / "one", tmp_path / "two"]
    (tmp_path / "one" / "results.json").write_text("{}")
    assert last_scores(folders, METRICS) is None  # the second is not finished
    (tmp_path / "two" / "results.json").write_text("{}")
    found = last_scores(folders, METRICS)
    assert found == {"a": 40.0, "b": 20.0, "mean": 30.0, "information": 0.75}


def test_history_at_the_steps_that_all_runs_have(tmp_path):
    for name, steps in (("0", (9, 19, 29)), ("1", (9, 29))):
        (tmp_path / name).mkdir()
        rows = [f"{s},train/information_normalised,0.{s}" for s in steps]
        (tmp_path / name / "metrics.csv").write_text("\n".join(["step,metric,value", *rows]))
    found = information_history([tmp_path / "0", tmp_path / "1"])
    assert found == [(9, [0.9, 0.9]), (29, [0.29, 0.29])]
    assert information_history([]) == []


def scores(*pairs: tuple[float, float]) -> dict[int, dict[str, float]]:
    return {seed: {"a": a, "b": b, "mean": (a + b) / 2} for seed, (a, b) in enumerate(pairs)}


def compared(single_b: float):
    moe = {seed: {**s, "information": 0.9} for seed, s in scores((50, 30), (52, 32)).items()}
    dense = scores((50, 29), (50, 30), (10, 10))
    return comparison_table(
        "moe.test",
        "Test",
        {"moe": moe, "dense": dense, "single": scores((40, single_b)), "unfinished": {}},
        METRICS,
        note="Mean.",
        within="single",
        ahead_of="dense",
    )


@pytest.mark.parametrize(("single_b", "holds"), [(30.9, True), (31.1, False)])
def test_first_row_claims_against_the_others(single_b, holds):
    first = compared(single_b).figures[0]
    assert first.values["mean to dense"] == pytest.approx(41 - 39.75)  # the third seed has no match
    assert first.values["b to single"] == pytest.approx(30 - single_b)
    assert [c.value for c in first.claims] == [
        "a to single", "b to single", "mean to dense", "information"
    ]  # fmt: skip
    assert first.holds is holds


def test_each_seed_is_shown_and_rows_without_a_run_are_not():
    text = markdown_table(compared(30))
    assert "| moe | **51.0 (50.0, 52.0)** | **31.0 (30.0, 32.0)** |" in text
    assert "unfinished" not in text


def report(change: float, score: float) -> dict:
    rows = [("all experts", 0, 200), ("ever used", 0.0, 150), ("4 of 8", change, 100)]
    return {
        "Pruned to a task": [
            {"task": "a", "experts": e, "percent": 1.0, "change": c, "parameters": p}
            for e, c, p in rows
        ],
        "New task": [
            {"trained": way, "new": score + gain, "trained parameters": 650, "share": "0.1 %",
             "worst old task": worst}
            for way, gain, worst in (("head", 0, 0.0), ("all", 5, -20.0))
        ],
    }  # fmt: skip


def test_surgery_tables(tmp_path):
    for seed, content in enumerate((report(-0.5, 20.0), report(-2.5, 30.0))):
        (tmp_path / str(seed)).mkdir()
        (tmp_path / str(seed) / "surgery.json").write_text(json.dumps(content))
    reports = surgery_reports([tmp_path / str(seed) for seed in range(3)])
    assert len(reports) == 2
    pruned = pruning_table("moe.pruning", "Pruned", reports)
    assert [f.what for f in pruned.figures] == ["a, ever used", "a, 4 of 8"]
    assert [f.holds for f in pruned.figures] == [None, False]  # half, -1.5 on average
    assert "| a, 4 of 8 | -1.5 (-0.5, -2.5) | 50 % |" in markdown_table(pruned)
    new = extension_table("moe.extension", "New", reports)
    assert [f.holds for f in new.figures] == [True, None]
    assert "| head | 25.0 (20.0, 30.0) | 650 (0.1 %) | 0.0 |" in markdown_table(new)
