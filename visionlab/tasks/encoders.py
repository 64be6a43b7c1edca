"""Pre-trained encoders as the start of other runs: where they go in a config, and do they fit?"""

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionlab import checkpoint
from visionlab import config as configs
from visionlab.data.randomness import seed_all


@dataclass(frozen=True)
class Encoder:
    """Weights that a table of transfer has a row for.

    Attributes:
        label: names its runs; of the folder of a ``last.ckpt``, else of the file.
        path: a training checkpoint or a weights file.
        seed: of the run that made it, 0 if it carries none.
        model: digest of the config of its model; empty if it carries none.
    """

    label: str
    path: Path
    seed: int
    model: str = ""

    @property
    def group(self) -> str:
        """The label without a number at its end, if runs of this model may differ in their seed.

        Published weights keep theirs: it is a size (``vit_base_patch16_224``).
        """
        if not self.model:
            return self.label
        return re.sub(r"[_-]\d+$", "", self.label) or self.label


def read_encoder(path: Path) -> Encoder:
    """The encoder behind a path.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: the file is broken.
    """
    path = Path(path)
    stamp = checkpoint.read(path).get("visionlab")
    config = stamp.get("config") if isinstance(stamp, Mapping) else None
    seed = config.get("seed", 0) if isinstance(config, Mapping) else 0
    resolved = path.resolve()
    label = resolved.parent.name if path.stem == "last" else path.stem
    model = _digest(_model_of(config)) if isinstance(config, Mapping) else ""
    return Encoder(label, path, int(seed), model)


def _model_of(config: Mapping[str, Any]) -> Any:
    held = config.get("task")
    return held.get("model") if isinstance(held, Mapping) else config.get("model")


def _digest(model: Any) -> str:
    text = json.dumps(checkpoint.plain(model), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def write_untrained(encoder: Encoder, folder: Path, *, trust_code: bool = False) -> Encoder:
    """The encoder as it was before its first step: same config, same seed.

    Its file lies in a folder by the digest of its backbone's config, so that none of another
    network is taken for it; pre-trainings that differ in the mask or the decoder share one.

    Raises:
        CheckpointError: the file carries no config, so nobody knows where it started.
    """
    content = checkpoint.read(encoder.path)
    config = checkpoint.config_of(content, str(encoder.path))
    node = copy.deepcopy(_model_of(config))
    digest = _digest(node.get("backbone", node) if isinstance(node, Mapping) else node)
    path = folder / digest / f"untrained_{encoder.seed}.ckpt"
    if not path.is_file():
        seed_all(encoder.seed)
        model = configs.build(node, key="model", trust_code=trust_code)
        checkpoint.save_model(model, path, node)
    return Encoder(path.stem, path, encoder.seed, digest)


def with_encoder(config: Mapping[str, Any], encoder: Path, source: str) -> dict[str, Any]:
    """A copy of a downstream config that starts from an encoder.

    The innermost backbone gets the weights, so that windows or MoE layers (with ``upcycle: true``)
    are built around them.

    Raises:
        ConfigError: the config has no backbone.
    """
    changed = copy.deepcopy(dict(config))
    node = changed.get("task", {}).get("model")
    path = "task.model"
    while isinstance(node, dict) and node.get("backbone"):
        if isinstance(node["backbone"], str):
            node["backbone"] = {"name": node["backbone"]}
        node, path = node["backbone"], f"{path}.backbone"
    if path == "task.model":
        raise configs.ConfigError(
            ["task.model has no backbone that could start from an encoder; name a classifier "
             "('image_classifier') or a model with heads ('multitask')"],
            source,
        )  # fmt: skip
    node["checkpoint_path"] = str(encoder)
    return changed


def build_with(config: Mapping[str, Any], encoder: Encoder, source: str) -> Any:
    """The model of a downstream config with the weights of an encoder.

    Raises:
        CheckpointError: the weights are of another network.
    """
    node = with_encoder(config, encoder.path, source)["task"]["model"]
    try:
        return configs.build(node, key="model")
    except configs.ConfigError as error:
        if not isinstance(error.__cause__, checkpoint.CheckpointError):
            raise
        raise checkpoint.CheckpointError(
            f"the encoder {encoder.path} does not fit the backbone of {source}; give it the sizes "
            f"that it was trained with. {error.__cause__}"
        ) from error
