import logging
import resource
import subprocess
import sys

import pytest
import yaml

from visionlab import config as configs
from visionlab.config import ConfigError


def cpu_seconds_of_children() -> float:
    """Processor time of finished child processes: other load on the machine does not change it."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.fixture
def write(tmp_path):
    def write(name="run.yaml", **content):
        (tmp_path / name).write_text(yaml.safe_dump(content), encoding="utf-8")
        return tmp_path / name

    return write


def minimal(**model):
    return {
        "task": {
            "name": "finetuning",
            "model": {
                "name": "image_classifier",
                "num_classes": 3,
                "backbone": {
                    "name": "vit", "img_size": 8, "patch_size": 4, "embed_dim": 6, "depth": 1
                },
                **model,
            },
        },
        "data": {"name": "images", "datasets": {}},
        "seed": 1,
    }  # fmt: skip


# ---------------------------------------------------------------- reading


def test_bases_are_merged_in_order_and_the_file_wins(write):
    write("a.yaml", seed=1, trainer={"max_epochs": 1, "precision": "32"})
    write("b.yaml", seed=2, trainer={"max_epochs": 2})
    path = write(_base_=["a.yaml", "b.yaml"], trainer={"max_epochs": 3})
    assert configs.read(path) == {"seed": 2, "trainer": {"max_epochs": 3, "precision": "32"}}


def test_circular_bases_are_refused(write):
    write("a.yaml", _base_="run.yaml")
    with pytest.raises(ConfigError, match=r"_base_ refers back to run\.yaml"):
        configs.read(write(_base_="a.yaml"))


def test_missing_file_names_the_nearest(write):
    path = write("quickstart.yaml", seed=1)
    with pytest.raises(
        ConfigError, match=r"no file 'quickstrat\.yaml'.*Did you mean 'quickstart\.yaml'"
    ):
        configs.read(path.with_name("quickstrat.yaml"))


@pytest.mark.parametrize("text", ["a: [1, 2", "a: 1\na: 2", "- 1\n- 2", "\x00", "a: ${b}"])
def test_what_is_no_config_gets_one_sentence(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        configs.read(path)
    assert len(error.value.errors) == 1


@pytest.mark.parametrize(
    ("text", "where", "value"),
    [
        ("trainer.max_epochs=3", ("trainer", "max_epochs"), 3),
        ("trainer.lr=1e-4", ("trainer", "lr"), 1e-4),
        ("task.expr=a=b=c", ("task", "expr"), "a=b=c"),
        ("task.sizes=[1,2,[3,4]]", ("task", "sizes"), [1, 2, [3, 4]]),
        ("task.limit=null", ("task", "limit"), None),
        ("task.a.b.c=true", ("task", "a"), {"b": {"c": True}}),
        ("seed=0", ("seed",), 0),
        ("task.text=", ("task", "text"), None),
        ("data.items.1.x=5", ("data", "items"), [{"x": 0}, {"x": 5}]),
    ],
)
def test_overrides(write, text, where, value):
    path = write(trainer={}, task={}, data={"items": [{"x": 0}, {"x": 1}]})
    found = configs.read(path, [text])
    for key in where:
        found = found[key]
    assert found == value


@pytest.mark.parametrize("text", ["trainer", "=3", "a..b=1", "trainr.max_epochs=3", "seed.x=1"])
def test_malformed_overrides_are_reported_together(write, text):
    with pytest.raises(ConfigError) as error:
        configs.read(write(seed=1, trainer={}), [text, "nonsense"])
    assert len(error.value.errors) == 2


def test_naming_another_component_drops_the_old_ones_keys(write, caplog):
    caplog.set_level(logging.INFO, "visionlab")
    path = write(task={"model": {"mask": {"name": "green", "f0": 0.2}, "x": 1}})
    for text in ("task.model.mask=red", "task.model.mask.name=red", "task.model.mask={name: red}"):
        assert configs.read(path, [text])["task"]["model"] == {"mask": {"name": "red"}, "x": 1}
    assert "task.model.mask is now red: dropped f0" in caplog.text
    same = configs.read(path, ["task.model.mask={name: green, ratio: 0.5}"])["task"]["model"]
    assert same["mask"] == {"name": "green", "f0": 0.2, "ratio": 0.5}


def test_a_component_given_by_name_alone_takes_further_keys(write):
    path = write(task={"model": {"mask": "green"}})
    model = configs.read(path, ["task.model.mask.ratio=0.6"])["task"]["model"]
    assert model["mask"] == {"name": "green", "ratio": 0.6}


def test_interpolation_is_resolved(write):
    assert configs.read(write(seed=3, output="runs/${seed}"))["output"] == "runs/3"


# ---------------------------------------------------------------- checking


def test_a_sound_config_passes():
    configs.check(minimal())


def test_all_names_are_checked_together():
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


def test_types_and_missing_arguments_are_found_together():
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
        ({"evaluations": "knn"}, "evaluations: expected a list"),
    ],
)
def test_sections_of_the_wrong_kind(change, message):
    assert any(message in e for e in configs.check_names(minimal() | change))


def test_null_is_no_component_where_one_is_needed():
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


# ---------------------------------------------------------------- building


def test_children_are_built_first_and_lists_become_tuples():
    node = minimal()["task"]["model"]
    node["backbone"]["img_size"] = [8, 12]
    model = configs.build(node, key="model")
    assert model.backbone.patch_embed.img_size == (8, 12)


def test_constructor_errors_carry_the_path():
    config = minimal(backbone={"name": "vit", "embed_dim": 7, "num_heads": 3})
    with pytest.raises(ConfigError, match=r"task\.model\.backbone \(vit\): embed_dim 7"):
        configs.build(config["task"], key="task")


def test_timm_arguments_get_the_nearest_right_one():
    with pytest.raises(ConfigError, match=r"no argument 'dpth'\. Did you mean 'depth'"):
        configs.build({"name": "vit_tiny_patch16_224", "dpth": 2}, key="backbone")


class OwnHead:
    def __init__(self, width: int = 2):
        self.width = width


def test_target_builds_a_users_class_and_is_checked():
    node = {"_target_": f"{__name__}.OwnHead", "width": 5}
    assert configs.build(node, key="head").width == 5
    config = {"task": "finetuning", "data": {"head": {**node, "wdith": 1}}}
    assert any(
        "no key 'wdith'. Did you mean 'width'" in e for e in configs.check_signatures(config)
    )


@pytest.mark.parametrize("target", ["no_such_module.Class", f"{__name__}.Missing", "nodots"])
def test_wrong_target_is_explained(target):
    with pytest.raises(ConfigError, match="_target_"):
        configs.build({"_target_": target}, key="head")


def test_untrusted_target_is_refused_wherever_it_stands():
    inner = {"name": "image_classifier", "num_classes": 2, "backbone": {"_target_": "os.getcwd"}}
    for node in ({"_target_": "os.system", "command": "true"}, inner):
        with pytest.raises(ConfigError, match="trust_code"):
            configs.build(node, key="model", trust_code=False)


def test_plural_keys_hold_components(tmp_path):
    import numpy as np

    np.savez(tmp_path / "x.npz", images=np.zeros((2, 4, 4), np.uint8), labels=np.arange(2))
    node = {"name": "array_images", "path": str(tmp_path / "x.npz")}
    built = configs.build_tree({"datasets": {"a": node, "b": node}}, "")
    assert len(built["datasets"]["b"]) == 2


def test_differences_name_every_change():
    old = {"a": {"b": 1, "c": 2}, "d": 3}
    assert configs.differences(old, old) == []
    assert configs.differences(old, {"a": {"b": 5}, "d": 3, "e": 4}) == [
        "a.b: 1 -> 5",
        "a.c: 2 -> (absent)",
        "e: (absent) -> 4",
    ]
