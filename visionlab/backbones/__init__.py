"""The shared backbone registry: every timm model by its name, and the project's own networks.

    create_backbone("vit_base_patch16_224", img_size=(224, 384))
    list_backbones("vit_tiny*")

What masking, heads and MoE need of a backbone is written down in `visionlab.backbones.protocol`.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from visionlab.backbones.timm_names import timm_names
from visionlab.registry import Registry, lazy_exports

if TYPE_CHECKING:
    from torch import nn

    from visionlab.backbones.protocol import feature_map as feature_map
    from visionlab.backbones.protocol import grid_size as grid_size
    from visionlab.backbones.protocol import patch_size as patch_size

T = TypeVar("T")


class BackboneRegistry(Registry):
    """Own networks by lazy place, then every architecture that the installed timm registers."""

    def place(self, name: str) -> Any:
        """The entry of ``name``; a timm architecture becomes a constructor bound to its name."""
        if isinstance(name, str) and name not in self._entries:
            architecture = name.partition(".")[0]  # "architecture.tag", as timm writes it
            if architecture in timm_names():
                from visionlab.backbones.timm_models import create_timm

                return partial(create_timm, name)
        return super().place(name)

    def names(self, pattern: str = "*") -> list[str]:
        """Own names and timm's that match a shell pattern, sorted."""
        timm = {n for n in timm_names() if fnmatchcase(n, pattern)}
        return sorted(timm.union(super().names(pattern)))


BACKBONES = BackboneRegistry(
    "backbone",
    {
        "vit": "visionlab.backbones.vit:vit",
        "windowed": "visionlab.backbones.windowed:windowed",
        "convex_conv": "visionlab.backbones.convex:ConvexConv",
        "convex_mlp": "visionlab.backbones.convex:ConvexMLP",
        "official_lpn": "visionlab.proximal.compat:OfficialPotential",
        "moe_vit": "visionlab.backbones.moe_vit:MoEViT",
        "moe_vit_tiny": "visionlab.backbones.moe_vit:MoEViTTiny",
        "moe_vit_small": "visionlab.backbones.moe_vit:MoEViTSmall",
        "moe_vit_base": "visionlab.backbones.moe_vit:MoEViTBase",
        "raft_small": "visionlab.backbones.raft:raft_small",
        "raft_large": "visionlab.backbones.raft:raft_large",
    },
)


def create_backbone(name: str, **kwargs: Any) -> "nn.Module":
    """Build a backbone by name.

    Args:
        name: a name of `list_backbones`.
        **kwargs: arguments of its constructor; for timm models ``img_size``, ``in_chans``,
            ``drop_path_rate``, ... and ``checkpoint_path``, a local file with weights.

    Raises:
        UnknownNameError: no such name; the message tells the nearest one.
    """
    return BACKBONES.get(name)(**kwargs)


def list_backbones(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern such as ``"vit_small*"``."""
    return BACKBONES.names(pattern)


def register_backbone(name: str) -> Callable[[T], T]:
    """Decorator that adds a class or function to the registry under ``name``."""
    return BACKBONES.register(name)


__getattr__, __dir__ = lazy_exports(
    __name__,
    {"patch_size": "protocol", "grid_size": "protocol", "feature_map": "protocol"}
    | {n: n for n in ("protocol", "timm_models", "timm_names", "vit", "weights")}
    | {"WindowedAttention": "windowed"},
)
