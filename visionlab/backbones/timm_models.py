"""timm models as backbones: no classifier, no pooling, weights from a local file if asked."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from visionlab.registry import suggest


def create_timm(
    name: str,
    *,
    pretrained: bool = False,
    checkpoint_path: str | Path | None = None,
    img_size: int | tuple[int, int] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a timm model that returns tokens or feature maps.

    Args:
        name: timm name, ``"architecture"`` or ``"architecture.tag"``.
        pretrained: take timm's published weights (needs network or timm's cache).
        checkpoint_path: local weights instead: timm, official MAE layout, an encoder exported by
            this project, or one of its training checkpoints. Position embeddings are resampled
            to ``img_size``.
        img_size: input size (H, W) or side in pixels; the model's own if None.
        **kwargs: further arguments of the timm model.

    Raises:
        TypeError: an argument that the model does not know.
        FileNotFoundError: no file at ``checkpoint_path``.
    """
    import timm

    if pretrained and checkpoint_path is not None:
        raise ValueError("give pretrained=True or checkpoint_path, not both")
    if img_size is not None:
        kwargs["img_size"] = img_size
    if _takes_pooling(name):
        kwargs.setdefault("global_pool", "")
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0, **kwargs)
    except TypeError as error:
        raise TypeError(_explain(error, name, kwargs)) from error
    if checkpoint_path is not None:
        from visionlab.backbones.weights import load_encoder_weights

        load_encoder_weights(model, checkpoint_path)
    return model


def _takes_pooling(name: str) -> bool:
    """Transformers return all tokens only when built without pooling; CNNs need nothing."""
    module = _module_of(name)
    return module.rpartition(".")[2] in {"vision_transformer", "deit", "eva", "beit", "naflexvit"}


def _module_of(name: str) -> str:
    from timm.models import model_entrypoint

    return model_entrypoint(name.partition(".")[0]).__module__


def _explain(error: TypeError, name: str, kwargs: Mapping[str, Any]) -> str:
    """Name the wrong argument and the nearest right one, where the class can be told."""
    from timm.models.vision_transformer import VisionTransformer

    known = [p for p in inspect.signature(VisionTransformer).parameters if p != "self"]
    if not _module_of(name).endswith(".vision_transformer"):
        return f"{name} refused its arguments: {error}"
    unknown = [k for k in kwargs if k not in known]
    return "; ".join(f"{name} has no argument '{k}'. {suggest(k, known)}" for k in unknown) or str(
        error
    )
