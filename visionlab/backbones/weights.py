"""Encoder weights from a local file into a backbone, strictly.

Understood: timm's files (``.safetensors``, ``.pth``), the official MAE layout (same keys), an
encoder written by `visionlab.checkpoint.export_encoder`, and this project's training checkpoints.
"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from visionlab import checkpoint

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

_DROPPED = ("decoder", "mask_token", "head.", "fc_norm.")  # not of the encoder


def load_encoder_weights(backbone: nn.Module, path: str | Path) -> None:
    """Load every encoder weight of ``path``; position embeddings are resampled to the grid.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not a weights file, or its keys or shapes are not this backbone's.
    """
    state = encoder_state(checkpoint.read(path))
    state = _fit(state, backbone, Path(path))
    checkpoint.load_strictly(backbone, state, source=str(path))


def encoder_state(payload: dict[str, Any]) -> dict[str, Tensor]:
    """The encoder's tensors among whatever a weights file holds, without their prefix."""
    state = payload
    for key in ("state_dict", "model"):
        if isinstance(state.get(key), dict):
            state = state[key]
    for prefix in ("model.backbone.", "backbone.", "module.", "encoder."):
        if any(k.startswith(prefix) for k in state):
            state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            break
    return {k: v for k, v in state.items() if isinstance(v, Tensor) and not k.startswith(_DROPPED)}


def _fit(state: dict[str, Tensor], backbone: nn.Module, path: Path) -> dict[str, Tensor]:
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    if not isinstance(backbone, VisionTransformer):
        return state
    positions = state.get("pos_embed")
    own = backbone.pos_embed
    if positions is not None and own is not None and positions.shape[1] != own.shape[1]:
        state = {**state, "pos_embed": _resample_positions(positions, backbone, path)}
    return checkpoint_filter_fn(state, backbone)


def _resample_positions(positions: Tensor, backbone: "VisionTransformer", path: Path) -> Tensor:
    """Position embeddings [1, prefix + L, D] of another grid, on the backbone's grid."""
    from timm.layers import resample_abs_pos_embed

    prefix = 0 if backbone.no_embed_class else backbone.num_prefix_tokens
    return resample_abs_pos_embed(
        positions,
        new_size=list(backbone.patch_embed.grid_size),
        old_size=list(_source_grid(positions.shape[1] - prefix, path)),
        num_prefix_tokens=prefix,
    )


def _source_grid(patches: int, path: Path) -> tuple[int, int]:
    """The grid that a file was trained on: from its side-car, else the square one."""
    sidecar = path.with_name(path.name + ".json")
    if sidecar.is_file():
        arguments = json.loads(sidecar.read_text(encoding="utf-8"))["arguments"]
        (h, w), (ph, pw) = arguments["img_size"], arguments["patch_size"]
        return h // ph, w // pw
    side = math.isqrt(patches)
    if side * side != patches:
        raise checkpoint.CheckpointError(
            f"{path} holds positions of {patches} patches, no square grid, and no side-car "
            f"{sidecar.name} tells their shape; write the encoder with tools/export.py"
        )
    return side, side
