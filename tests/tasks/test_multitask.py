import copy
import sys
from pathlib import Path

import lightning as L
import pytest
import torch

import visionlab
from visionlab import checkpoint
from visionlab import config as configs
from visionlab.data.randomness import seed_all
from visionlab.tasks.curves import read_curves
from visionlab.tasks.multitask import MultiTaskTraining, check_data
from visionlab.tasks.training import run

sys.path.insert(0, str(Path(__file__).parent))
from multitask_fixture import config, write_archives

pytestmark = [
    # one step of tiny sets is a batch: Lightning advises workers and larger logs
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    # Lightning's loaders walk their trees with a name that torch has deprecated
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*ModelCheckpoint with manual optimization.*"),
]


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("archives")
    write_archives(folder)
    return folder


def changed(node: dict, **values) -> dict:
    node = copy.deepcopy(node)
    for path, value in values.items():
        *parents, last = path.split("__")
        inner = node
        for key in parents:
            inner = inner[key]
        inner[last] = value
    return node


def weights(folder: Path) -> dict:
    return checkpoint.read(folder / "last.ckpt")["state_dict"]


def test_three_tasks_train_and_are_measured(archives, tmp_path):
    node = config(archives, tmp_path / "run")
    configs.check(node)
    run(node)
    curves = read_curves(tmp_path / "run" / "metrics.csv")
    names = {
        "train/a",
        "train/b",
        "train/c",
        "train/loss",
        "train/routing_information",
        "train/information_normalised",
        "val/a_top1",
        "val/b_ap50",
        "val/c_miou",
        "val/mean",
    }
    assert names <= set(curves)  # fmt: skip
    assert len(curves["train/loss"]) == 6
    mains = [dict(curves[f"val/{n}"])[5] for n in ("a_top1", "b_ap50", "c_miou")]
    assert dict(curves["val/mean"])[5] == pytest.approx(sum(mains) / 3, rel=1e-5)
    state = weights(tmp_path / "run")
    assert state["routing_loss.table.mass"].min() > 0  # the table is saved
    model = visionlab.load(tmp_path / "run" / "last.ckpt")
    assert model(torch.zeros(1, 3, 16, 16), task="a").shape == (1, 2)


def test_losses_fall(archives, tmp_path):
    node = config(archives, tmp_path / "run")
    node = changed(node, trainer__max_epochs=10, trainer__check_val_every_n_epoch=10)
    run(node)
    curves = read_curves(tmp_path / "run" / "metrics.csv")
    for task in "abc":
        values = [v for _, v in curves[f"train/{task}"]]
        assert sum(values[-5:]) < 0.8 * sum(values[:5]), task


@pytest.mark.parametrize("schedule", ["joint", "sampled"])
def test_a_killed_run_resumes_with_the_very_same_steps(archives, tmp_path, schedule, monkeypatch):
    whole = changed(config(archives, tmp_path / "whole"), data__schedule=schedule)
    run(whole)
    part = changed(whole, output=str(tmp_path / "part"))
    step = MultiTaskTraining.training_step

    def dies(self, batch, batch_idx):
        if self.global_step == 4:  # in the middle of the second epoch
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(MultiTaskTraining, "training_step", dies)
        with pytest.raises(RuntimeError, match="killed"):
            run(part)
    killed = tmp_path / "part" / "last.ckpt"
    assert checkpoint.read(killed)["global_step"] == 4
    run(part, resume=killed)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "part")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_a_task_that_is_not_drawn_does_not_move(archives, tmp_path):
    """Neither weight decay nor old momentum touches its head and routers."""
    node = changed(config(archives, tmp_path / "run"), data__schedule="sampled")
    node["data"]["steps_per_epoch"] = 1
    node["trainer"]["max_epochs"] = 1
    data = configs.build(node["data"], key="data")
    data.seed = 3
    drawn = data.step_schedule().draws(0)[0][0]
    run(node)
    seed_all(3)  # as the run builds: data, then task
    configs.build(node["data"], key="data")
    before = dict(configs.build(node["task"], key="task").named_parameters())
    after = weights(tmp_path / "run")
    for task in "abc":
        keys = [
            k for k in before
            if k.startswith(f"model.heads.{task}.") or f"routers.{task}." in k
        ]  # fmt: skip
        same = [torch.equal(before[k], after[k]) for k in keys]
        assert len(same) > 2
        moved = [k for k, s in zip(keys, same) if not s]
        assert len(moved) == (len(keys) if task == drawn else 0), (task, drawn, moved)


def test_uncertainty_learns_its_weights(archives, tmp_path):
    node = changed(config(archives, tmp_path / "run", moe=False), task__weights="uncertainty")
    run(node)
    state = weights(tmp_path / "run")
    learnt = [float(state[f"weights.log_variance.{t}"]) for t in "abc"]
    assert all(v != 0 for v in learnt)


def small_task(archives, **options) -> MultiTaskTraining:
    node = config(archives, Path("unused"))
    return MultiTaskTraining(configs.build(node["task"]["model"], key="model"), **options)


def test_gradient_clip_bounds_the_step(archives):
    node = config(archives, Path("unused"), moe=False)
    norms = {}
    for clip in (None, 0.01):
        torch.manual_seed(0)
        task = MultiTaskTraining(
            configs.build(node["task"]["model"], key="model"),
            configs.build({"name": "sgd", "lr": 1.0, "momentum": 0.0}, key="optimizer"),
            gradient_clip=clip,
        )
        before = {k: v.clone() for k, v in task.model.state_dict().items()}
        trainer = L.Trainer(
            max_steps=1, max_epochs=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        )  # fmt: skip
        trainer.fit(task, datamodule=configs.build(node["data"], key="data"))
        moved = [(v - before[k]).norm() for k, v in task.model.state_dict().items()]
        norms[clip] = float(torch.stack(moved).norm())
    assert norms[0.01] == pytest.approx(0.01, rel=0.02)
    assert norms[None] > 0.1


def test_data_and_heads_must_fit(archives):
    node = config(archives, Path("unused"))
    model = configs.build(node["task"]["model"], key="model")
    datasets = configs.build(node["data"], key="data").datasets
    with pytest.raises(ValueError, match="no task 'aa' in this model"):
        check_data(model, {"aa": datasets["a"]})
    with pytest.raises(ValueError, match="data of 'a' have 3 classes, its head 2"):
        check_data(model, {"a": datasets["c"]})
    with pytest.raises(ValueError, match="train data of 'a' are for detection, its head is for cl"):
        check_data(model, {"a": datasets["b"]})


def test_wrong_arguments_are_named(archives):
    with pytest.raises(ValueError, match="a weight for no task 'd'"):
        small_task(archives, weights={"d": 1.0})
    with pytest.raises(ValueError, match=r"no weighting 'uncertain'. Did you mean 'uncertainty'"):
        small_task(archives, weights="uncertain")
    with pytest.raises(ValueError, match=r"gradient_clip is -1\.0; expected a positive norm"):
        small_task(archives, gradient_clip=-1.0)
    with pytest.raises(ValueError, match=r"no loss on routing 'infomation'. Did you mean 'info"):
        small_task(archives, routing={"infomation": 1.0})
    with pytest.raises(TypeError, match="needs a MultiTaskModel, got Linear"):
        MultiTaskTraining(torch.nn.Linear(1, 1))
    node = config(archives, Path("unused"), moe=False)
    with pytest.raises(ValueError, match=r"losses on routing \(information\) need a MoE backbone"):
        MultiTaskTraining(
            configs.build(node["task"]["model"], key="model"), routing={"information": 1.0}
        )
