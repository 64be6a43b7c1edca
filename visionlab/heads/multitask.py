"""One backbone, several named heads: ``model(images, task="boxes")``."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from visionlab.backbones.protocol import grid_size, layer_groups, num_features
from visionlab.heads.features import Features, valid_patches
from visionlab.heads.sliding import sliding_classes
from visionlab.registry import suggest


class MultiTaskModel(nn.Module):
    """A plain or MoE ViT with a head for each task; heads of one kind may occur several times.

    Args:
        backbone: a ViT of the registry. One with MoE layers is told the task of each forward.
        heads: task -> head.

    Raises:
        ValueError: no head, or a MoE backbone without a router for one of the tasks.

    Example:
        >>> from visionlab.backbones import create_backbone
        >>> from visionlab.heads import LinearClassificationHead
        >>> vit = create_backbone("vit", img_size=64, patch_size=8, embed_dim=96, depth=2)
        >>> model = MultiTaskModel(vit, {"digits": LinearClassificationHead(96, 10)})
        >>> model(torch.zeros(2, 3, 64, 64), task="digits").shape
        torch.Size([2, 10])
    """

    def __init__(self, backbone: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if not heads:
            raise ValueError("a multi-task model needs at least one head, got none")
        try:
            self.backbone, self.heads = backbone, nn.ModuleDict(heads)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"'heads' maps names of tasks, without '.', to heads: {error.args[0]}"
            ) from error
        for task, head in heads.items():
            if self.routed and task not in backbone.tasks:  # type: ignore[operator]
                raise ValueError(
                    f"the backbone routes no task '{task}'. {suggest(task, list(backbone.tasks))} "  # type: ignore[arg-type]
                    "Name the same tasks in the backbone and in 'heads'"
                )
            if not hasattr(head, "dim"):
                raise TypeError(
                    f"the head '{task}' is a {type(head).__name__}, not one of visionlab.heads"
                )
            blocks, depth = (
                getattr(head, "blocks", None) or (),
                len(getattr(backbone, "blocks", ())),
            )
            if any(not -depth <= b < depth for b in blocks):
                raise ValueError(
                    f"the head '{task}' reads the blocks {list(blocks)}, the backbone has {depth}"
                )
            if head.dim != num_features(backbone):
                raise ValueError(
                    f"the head '{task}' was built for features of width {head.dim}, the backbone "
                    f"gives {num_features(backbone)}; set the head's 'dim' to it"
                )

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in the order of their heads."""
        return list(self.heads)

    @property
    def routed(self) -> bool:
        """Whether the backbone has MoE layers, and so takes the task and gives routing."""
        return hasattr(self.backbone, "moe_layers")

    def head(self, task: str) -> nn.Module:
        """The head of a task.

        Raises:
            ValueError: no such task; the message names the nearest.
        """
        if task not in self.heads:
            raise ValueError(f"no task '{task}' in this model. {suggest(task, self.heads)}")
        return self.heads[task]

    def forward(
        self,
        images: Tensor,
        *,
        task: str,
        size: Tensor | None = None,
        routing: list[Any] | None = None,
    ) -> Any:
        """Raw output of the task's head.

        Args:
            images: (B, 3, H, W) normalised, sides multiples of the patch size.
            task: which head, and which routers.
            size: (B, 2) int64, height and width of each picture without its padding at right and
                bottom; unpadded if None.
            routing: a list to which each MoE layer appends its decisions.

        Raises:
            TypeError: images that are no floats.
            ValueError: unknown task, or sizes of another shape.
        """
        head = self.head(task)
        return head(self.features(images, task=task, size=size, routing=routing))

    def features(
        self,
        images: Tensor,
        *,
        task: str,
        size: Tensor | None = None,
        routing: list[Any] | None = None,
    ) -> Features:
        """What the backbone hands to the head; arguments as `forward`."""
        if not images.is_floating_point():
            raise TypeError(f"expected normalised float images, got {images.dtype}")
        if size is not None and size.shape != (len(images), 2):
            raise ValueError(
                f"size is (B, 2), height and width of each picture: expected ({len(images)}, 2), "
                f"got {tuple(size.shape)}"
            )
        extent = (int(images.shape[-2]), int(images.shape[-1]))
        grid = grid_size(self.backbone, extent)
        backbone: Any = self.backbone
        blocks = getattr(self.head(task), "blocks", None)
        options: dict[str, Any] = {}
        if self.routed:
            mask = None if size is None else valid_patches(size, grid, extent).flatten(1)
            options = {"task": task, "token_mask": mask, "routing": routing}
        if blocks is None:
            tokens, maps = backbone.forward_features(images, **options), ()
        else:
            tokens, maps = backbone.forward_intermediates(images, indices=blocks, **options)
        if tokens.ndim != 3:
            raise TypeError(
                f"{type(backbone).__name__} gives features of shape {tuple(tokens.shape)}; these "
                "heads stand on the tokens of a plain ViT, for example 'vit_small_patch16_224'"
            )
        if size is None:
            size = torch.tensor(extent, device=images.device).expand(len(images), 2)
        return Features(tokens, grid, extent, size, tuple(maps))

    @torch.no_grad()
    def predict(self, images: Tensor, *, task: str, size: Tensor | None = None) -> Any:
        """Probabilities, boxes or classes of pixels: `predict` of the task's head.

        Pictures larger than the head's ``crop`` are segmented by windows.
        """
        head: Any = self.head(task)
        crop = getattr(head, "crop", None)
        if crop is None or max(images.shape[-2:]) <= crop:
            return head.predict(self(images, task=task, size=size))
        if size is None:
            size = torch.tensor(images.shape[-2:], device=images.device).expand(len(images), 2)
        return sliding_classes(
            lambda windows, sizes: self(windows, task=task, size=sizes),
            images,
            size,
            crop=crop,
            stride=head.stride,
        )

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Depth of each parameter for layer-wise learning-rate decay (timm's convention)."""
        return layer_groups("backbone.")
