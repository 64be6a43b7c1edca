"""Mistakes are found together, before anything is built; misspelt names before torch."""

import resource
import subprocess
import sys

import pytest

from visionlab import config as configs


def cpu_seconds_of_children() -> float:
    """Processor time of finished child processes: other load on the machine does not change it."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_a_sound_config_passes(minimal):
    configs.check(minimal())


def test_all_names_are_checked_together(minimal):
    config = minimal(bacbone=1, backbone={"name": "vit_tny_patch16_224"})
    config |= {"trainer": {"max_epoch": 3}, "sed": 1}
    errors = "\n".join(configs.check_names(config))
    for text in (
        "no top-level key 'sed'. Did you mean 'seed'?",
        "trainer: no key 'max_epoch'. Did you mean 'max_epochs'",
        "task.model: no key 'bacbone'. Did you mean 'backbone'?",
        "task.model.backbone: no backbone 'vit_tny_patch16_224'. Did you mean 'vit_tiny_patch",
    ):
        assert text in errors
    assert errors.count("\n") == 3


def test_types_and_missing_arguments_are_found_together(minimal):
    config = minimal(pool="max", num_classes="ten")
    config["task"]["nonfinite_limit"] = 1.5
    config["seed"] = "one"
    errors = "\n".join(configs.check_signatures(config))
    assert "task.model.pool: expected one of 'mean', 'token', got 'max'" in errors
    assert "task.model.num_classes: expected int, got 'ten'" in errors
    assert "task.nonfinite_limit: expected int, got 1.5" in errors
    assert "seed: expected int, got 'one'" in errors
    del config["task"]["model"]["num_classes"]
    assert any("'num_classes' is missing" in e for e in configs.check_signatures(config))


def test_component_without_name_says_what_is_known():
    errors = "\n".join(configs.check_names({"task": {"model": {}}, "data": "images"}))
    assert "'name' is missing" in errors
    assert "masked_pretraining" in errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": None}, "missing: data"),
        ({"trainer": [1]}, "trainer: expected keys and values"),
        ({"trainer": {"callbacks": []}}, "trainer.callbacks is set by this project"),
        ({"trainer": {"checkpoint_every_n_steps": -3}}, "expected an int of 1 or more, got -3"),
        ({"trainer": {"accumulate_grad_batches": 0}}, "accumulate_grad_batches: expected an int"),
        ({"evaluations": "knn"}, "evaluations: expected a list"),
    ],
)
def test_sections_of_the_wrong_kind(minimal, change, message):
    assert any(message in e for e in configs.check_names(minimal() | change))


def test_null_is_no_component_where_one_is_needed(minimal):
    config = minimal()
    config["task"]["model"] = None
    config["data"]["datasets"] = None
    errors = "\n".join(configs.check_signatures(config))
    assert "task.model: expected" in errors
    assert "data.datasets: expected" in errors
    assert not configs.check_signatures(
        {**minimal(), "task": minimal()["task"] | {"optimizer": None}}
    )


@pytest.mark.parametrize(
    "content", ["task: {name: finetunning}\n", "task: {name: finetuning, modle: 1}\n"]
)
def test_misspelt_names_are_reported_before_torch_is_imported(tmp_path, content):
    (tmp_path / "c.yaml").write_text(content, encoding="utf-8")
    code = (
        "import sys; from visionlab import config\n"
        "try: config.check(config.read(sys.argv[1]))\n"
        "except config.ConfigError as e: print(e)\n"
        "assert 'torch' not in sys.modules"
    )
    seconds = []
    for _ in range(3):
        start = cpu_seconds_of_children()
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "c.yaml")],
                              capture_output=True, text=True, check=True)  # fmt: skip
        seconds.append(cpu_seconds_of_children() - start)
    assert "Did you mean" in done.stdout
    assert min(seconds) < 1.0
