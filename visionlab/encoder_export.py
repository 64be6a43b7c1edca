"""The encoder of a model as a file that timm loads strictly."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionlab import atomic
from visionlab.checkpoint_files import CheckpointError, save


def export_encoder(
    model: nn.Module,
    path: str | Path,
    *,
    overwrite: bool = False,
    timm_name: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Path:
    """Write the encoder of ``model`` as a file that timm loads strictly, and verify it.

    ``timm.create_model(name, num_classes=0, checkpoint_path=path)`` takes the file. Beside it lies
    ``path`` with ``.json`` appended: timm name, arguments, image size, mean and std.

    Args:
        model: a model with a timm ``backbone``, or the backbone itself.
        path: ``.safetensors`` or ``.pth``.
        overwrite: replace an existing file.
        timm_name: timm's name of the architecture; taken from the backbone if it knows, else
            ``vit_base_patch16_224`` with every size given as an argument.
        mean: per-channel mean of the training images on a 0..1 scale, for the side-car.
        std: per-channel standard deviation, likewise.

    Raises:
        FileExistsError: ``path`` exists and ``overwrite`` is False.
        TypeError: the model has no timm backbone.
        ValueError: ``mean`` or ``std`` of another length than the channels.
        CheckpointError: timm does not read the file back as it is; nothing is replaced.

    Returns:
        The path of the side-car.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pth"):
        raise ValueError(
            f"cannot export to '{path.name}': the name must end in .safetensors or .pth"
        )
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or pass overwrite=True")
    backbone = getattr(model, "backbone", model)
    if not hasattr(backbone, "pretrained_cfg") and not hasattr(backbone, "patch_embed"):
        raise TypeError(f"{type(model).__name__} has no timm backbone to export")
    state = {k: v.detach().cpu().contiguous() for k, v in backbone.state_dict().items()}
    card = _card(backbone, timm_name, mean, std)
    sidecar = path.with_name(path.name + ".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        new = Path(scratch) / path.name
        _write_state(state, new)
        _verify_export(card, new, state)  # what stood under the name stays until this holds
        new.replace(path)
    atomic.write_text(json.dumps(card, indent=2), sidecar)
    return sidecar


def _write_state(state: dict[str, Tensor], path: Path) -> None:
    if path.suffix == ".pth":
        save({"state_dict": state}, path)
        return
    from safetensors.torch import save as to_bytes

    with atomic.replacing(path) as file:
        file.write(to_bytes(state))


def _card(backbone: Any, name: str | None, mean: Any, std: Any) -> dict[str, Any]:
    cfg = getattr(backbone, "pretrained_cfg", None) or {}
    embed = backbone.patch_embed
    arguments = {
        "img_size": list(embed.img_size),
        "patch_size": list(embed.patch_size),
        "in_chans": int(embed.proj.in_channels),
        "embed_dim": int(backbone.embed_dim),
        "depth": len(backbone.blocks),
        "num_heads": int(backbone.blocks[0].attn.num_heads),
        "class_token": getattr(backbone, "cls_token", None) is not None,
        "reg_tokens": int(getattr(backbone, "num_reg_tokens", 0)),
    }
    for what, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != arguments["in_chans"]:
            raise ValueError(
                f"{what} has {len(values)} numbers, the encoder {arguments['in_chans']} channels"
            )
    architecture = name or cfg.get("architecture") or "vit_base_patch16_224"
    return {
        "timm_name": architecture,
        "arguments": {**arguments, "num_classes": 0, "global_pool": ""},
        "mean": list(mean or cfg.get("mean") or ()),
        "std": list(std or cfg.get("std") or ()),
    }


def _verify_export(card: Mapping[str, Any], path: Path, state: Mapping[str, Tensor]) -> None:
    """Load the written file the way a user of timm would and compare every tensor."""
    import timm

    arguments: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in card["arguments"].items()
    }
    again = timm.create_model(card["timm_name"], checkpoint_path=str(path), **arguments)
    for key, value in again.state_dict().items():
        if not torch.equal(value, state[key]):
            raise CheckpointError(f"the exported file {path} gives another '{key}'")
