"""Components become objects, children first."""

import pytest

from visionlab import config as configs
from visionlab.config import ConfigError


class OwnHead:
    def __init__(self, width: int = 2):
        self.width = width


def test_children_are_built_first_and_lists_become_tuples(minimal):
    node = minimal()["task"]["model"]
    node["backbone"]["img_size"] = [8, 12]
    model = configs.build(node, key="model")
    assert model.backbone.patch_embed.img_size == (8, 12)


def test_constructor_errors_carry_the_path(minimal):
    config = minimal(backbone={"name": "vit", "embed_dim": 7, "num_heads": 3})
    with pytest.raises(ConfigError, match=r"task\.model\.backbone \(vit\): embed_dim 7"):
        configs.build(config["task"], key="task")


def test_timm_arguments_get_the_nearest_right_one():
    with pytest.raises(ConfigError, match=r"no argument 'dpth'\. Did you mean 'depth'"):
        configs.build({"name": "vit_tiny_patch16_224", "dpth": 2}, key="backbone")


def test_target_builds_a_users_class_and_is_checked():
    node = {"_target_": f"{__name__}.OwnHead", "width": 5}
    assert configs.build(node, key="head").width == 5
    config = {"task": "finetuning", "data": {"head": {**node, "wdith": 1}}}
    assert any(
        "no key 'wdith'. Did you mean 'width'" in e for e in configs.check_signatures(config)
    )


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
