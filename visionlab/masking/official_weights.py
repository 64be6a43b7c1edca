"""Published weights from a local file: facebookresearch/mae and ColorMAE (mmpretrain layout).

Both layouts are renamed to timm's keys and loaded strictly: every key of the model must be there,
and every encoder key of the file must have been used.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visionlab.masking.autoencoder import MaskedAutoencoder

_MMPRETRAIN = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^layers\.", "blocks."),
    (r"\.ln1\.", ".norm1."),
    (r"\.ln2\.", ".norm2."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
    (r"^ln1\.", "norm."),
)
_DECODER = (
    (r"^decoder_embed\.", "embed."),
    (r"^decoder_blocks\.", "blocks."),
    (r"^decoder_norm\.", "norm."),
    (r"^decoder_pred\.", "head."),
    (r"^decoder_pos_embed$", "positions"),
)


def load_official_encoder(backbone: nn.Module, source: str | Path | Mapping[str, Any]) -> None:
    """Load the encoder of a published checkpoint into a timm ViT of the same size.

    Position embeddings of another (square) grid are resampled to the backbone's.

    Args:
        backbone: for example ``timm.create_model("vit_base_patch16_224", num_classes=0)``.
        source: ``.pth`` or ``.safetensors`` file, or its content as a mapping.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a published layout, or keys or shapes that are not this model's.
    """
    encoder, _ = _split_official(_content(source))
    state = {k: v for k, v in encoder.items() if not k.startswith(("head.", "fc_norm."))}
    state = {**state, "pos_embed": _fit_positions(state.get("pos_embed"), backbone)}
    own = {k: v for k, v in backbone.state_dict().items() if not k.startswith("head.")}
    _check(state, own, "the encoder")
    backbone.load_state_dict({**backbone.state_dict(), **state}, strict=True)


def load_official_autoencoder(
    model: MaskedAutoencoder, source: str | Path | Mapping[str, Any]
) -> None:
    """Load encoder and decoder; the file must hold a decoder (MAE's "visualize" files do).

    Raises:
        ValueError: as for the encoder, or the file has no decoder.
    """
    content = _content(source)
    _, decoder = _split_official(content)
    if not decoder:
        raise ValueError(
            "this file holds an encoder only; a reconstruction needs one with decoder keys "
            "(decoder_embed, ... or neck.*)"
        )
    positions = decoder["positions"][0]
    decoder["positions"] = positions[len(positions) - len(model.decoder.positions) :]
    _check(decoder, model.decoder.state_dict(), "the decoder")
    load_official_encoder(model.backbone, content)
    model.decoder.load_state_dict(decoder, strict=True)


def _split_official(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Encoder under timm's keys, decoder under ours, from the content of a published file."""
    for wrapper in ("model", "state_dict"):
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    tensors = {k: v for k, v in tensors.items() if not k.startswith("data_preprocessor.")}
    encoder, decoder = {}, {}
    for name, tensor in tensors.items():
        if name.startswith(("neck.", "decoder_")) or name == "mask_token":
            decoder[_rename(name.removeprefix("neck."), _MMPRETRAIN + _DECODER)] = tensor
        else:
            encoder[_rename(name.removeprefix("backbone."), _MMPRETRAIN)] = tensor
    if "patch_embed.proj.weight" not in encoder:
        raise ValueError(
            "no published MAE or ColorMAE layout: expected keys such as 'patch_embed.proj.weight' "
            f"or 'backbone.patch_embed.projection.weight', found {sorted(tensors)[:3]}"
        )
    return encoder, decoder


def _rename(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _content(source: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    from visionlab import checkpoint

    return checkpoint.read(source)


def _fit_positions(positions: Tensor | None, backbone: Any) -> Tensor:
    if positions is None:
        raise ValueError("the file has no 'pos_embed': not a published MAE encoder")
    if positions.shape == backbone.pos_embed.shape:
        return positions
    from timm.layers import resample_abs_pos_embed

    side = math.isqrt(positions.shape[1])
    grid = backbone.patch_embed.grid_size
    return resample_abs_pos_embed(
        positions, new_size=list(grid), old_size=[side, side], num_prefix_tokens=1
    )


def _check(state: Mapping[str, Tensor], own: Mapping[str, Tensor], part: str) -> None:
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    wrong = [k for k in set(own) & set(state) if own[k].shape != state[k].shape]
    problems = [
        f"{what}: {', '.join(map(str, names[:3]))}{' ...' if len(names) > 3 else ''}"
        for what, names in (("missing", missing), ("not of this model", extra))
        if names
    ]
    problems += [
        f"{k} is {tuple(state[k].shape)}, expected {tuple(own[k].shape)}" for k in sorted(wrong)[:1]
    ]
    if problems:
        raise ValueError(
            f"the file does not fit {part} ({'; '.join(problems)}); check the model's name and size"
        )
