"""Per-task tables and surgery on a tiny trained mixture, through the command line's doors."""

import argparse
import copy
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

import visionlab
from visionlab import checkpoint
from visionlab.moe.surgery import prune_to_task
from visionlab.tasks import multitask_evaluation, surgery
from visionlab.tasks.multitask_evaluation import evaluate_task, load_multitask
from visionlab.tasks.training import run

sys.path.insert(0, str(Path(__file__).parent))
from multitask_fixture import config, write_archives

pytestmark = [
    # Lightning's advice on tiny runs
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*ModelCheckpoint with manual optimization.*"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("surgery")
    write_archives(folder)
    run(config(folder, folder / "run"))
    return folder / "run" / "last.ckpt"


def arguments(module, *texts) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args([str(t) for t in texts])


def test_table_of_tasks(trained, capsys):
    multitask_evaluation.run(arguments(multitask_evaluation, trained))
    printed = capsys.readouterr().out
    rows = json.loads((trained.parent / "tasks.json").read_text())
    assert [r["task"] for r in rows] == ["a", "b", "c", "mean"]
    assert [r.get("figure") for r in rows] == ["top1", "ap50", "miou", None]
    assert all(r["pictures"] == 12 for r in rows[:3])
    assert rows[3]["percent"] == pytest.approx(sum(r["percent"] for r in rows[:3]) / 3, abs=0.02)
    assert "ap50" in printed


def test_evaluation_leaves_the_model_as_it_was(trained):
    task, data = load_multitask(trained)
    task.train()
    task.model.heads["a"].eval()
    first = evaluate_task(task.model, data, "a", split="val")
    assert first == evaluate_task(task.model, data, "a", split="val")
    assert task.model.training
    assert not task.model.heads["a"].training
    with pytest.raises(ValueError, match="no split 'test' of the task 'a'"):
        evaluate_task(task.model, data, "a", split="test")


def test_surgery_prunes_extends_and_reports(trained, tmp_path, capsys):
    new = config(trained.parent.parent, tmp_path / "new", moe=False)
    new["task"]["model"]["heads"] = {"d": new["task"]["model"]["heads"]["a"]}
    new["data"]["datasets"] = {"d": new["data"]["datasets"]["a"]}
    (tmp_path / "new.yaml").write_text(yaml.safe_dump(new))
    surgery.run(
        arguments(
            surgery, trained, "--keep", 0.5, "--save", tmp_path / "pruned",
            "--extend", tmp_path / "new.yaml", "--source", "a", "--steps", 3,
        )
    )  # fmt: skip
    printed = capsys.readouterr().out
    report = json.loads((trained.parent / "surgery.json").read_text())
    pruned = report["Pruned to a task"]
    assert [r["experts"] for r in pruned[:3]] == ["all experts", "ever used", "2 of 4"]
    assert pruned[1]["change"] == 0  # usage was measured on these very pictures
    assert pruned[2]["parameters"] < pruned[1]["parameters"] <= pruned[0]["parameters"]
    ways = {r["trained"]: r for r in report["New task"]}
    assert list(ways) == ["head", "routers and head", "new experts, routers and head", "all"]
    for way in list(ways)[:3]:  # no forgetting, by construction
        assert ways[way]["worst old task"] == 0
    trained_parameters = [r["trained parameters"] for r in ways.values()]
    assert trained_parameters == sorted(trained_parameters)
    assert "New task" in printed
    assert (trained.parent / "experts.png").stat().st_size > 1000

    model = visionlab.load(tmp_path / "pruned" / "a.pt")
    assert list(model.heads) == ["a"]
    task, data = load_multitask(trained)
    found = surgery.measured_usage(task.model, data)
    expected = prune_to_task(task.model, "a", keep=2, usage=found).eval()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(images, task="a"), expected(images, task="a"))


def test_a_checkpoint_with_other_experts_is_refused(trained, tmp_path):
    content = checkpoint.read(trained)
    content = copy.deepcopy(content)
    content["visionlab"]["config"]["task"]["model"]["backbone"]["num_experts"] = 3
    checkpoint.save(content, tmp_path / "other.ckpt")
    with pytest.raises(checkpoint.CheckpointError, match="experts"):
        load_multitask(tmp_path / "other.ckpt")


def test_wrong_inputs(trained, tmp_path):
    dense = config(trained.parent.parent, tmp_path / "dense", moe=False)
    dense["trainer"]["max_epochs"] = 1
    run(dense)
    with pytest.raises(ValueError, match="has no MoE layers; surgery needs experts"):
        surgery.run(arguments(surgery, tmp_path / "dense" / "last.ckpt"))
    both = tmp_path / "both.yaml"
    both.write_text(yaml.safe_dump(dense))
    with pytest.raises(ValueError, match=r"has the heads \['a', 'b', 'c'\]; expected one"):
        surgery.run(arguments(surgery, trained, "--extend", both))
