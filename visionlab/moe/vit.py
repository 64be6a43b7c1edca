"""A timm vision transformer with MoE layers; the task is an argument of every forward.

The state_dict keeps timm's names below ``vit.``; tasks, experts and blocks are described by
`MoEVisionTransformer.layout`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from visionlab.moe.attention import MoEAttention
from visionlab.moe.layer import MoELayer
from visionlab.moe.router import Routing
from visionlab.moe.structure import ExpertLayer, resolve_task


class MoEBlock(nn.Module):
    """A pre-norm transformer block whose MLP, attention, or both are mixtures.

    Args:
        block: timm's block; its norms, layer scales and stochastic depth are taken over.
        attention: replaces the attention; None keeps it.
        mlp: replaces the MLP; None keeps it.
    """

    def __init__(
        self, block: Block, *, attention: MoEAttention | None, mlp: MoELayer | None
    ) -> None:
        super().__init__()
        self.norm1, self.ls1, self.drop_path1 = block.norm1, block.ls1, block.drop_path1
        self.norm2, self.ls2, self.drop_path2 = block.norm2, block.ls2, block.drop_path2
        self.attn = attention or block.attn
        self.mlp = mlp or block.mlp

    def forward(
        self,
        x: Tensor,
        task: str,
        token_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, list[Routing]]:
        """Tokens (B, L, D) -> tokens and the routing of this block's MoE layers."""
        routing: list[Routing] = []
        if isinstance(self.attn, MoEAttention):
            y, r = self.attn(self.norm1(x), task, token_mask=token_mask)
            routing.append(r)
        else:
            y = self.attn(self.norm1(x), attn_mask=attn_mask)
        x = x + self.drop_path1(self.ls1(y))
        if isinstance(self.mlp, MoELayer):
            y, r = self.mlp(self.norm2(x), task, token_mask=token_mask)
            routing.append(r)
        else:
            y = self.mlp(self.norm2(x))
        return x + self.drop_path2(self.ls2(y)), routing


class MoEVisionTransformer(nn.Module):
    """timm's ViT protocol with a task argument; made by `insert_moe`.

    Args:
        vit: a timm VisionTransformer some of whose blocks are `MoEBlock`.
    """

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.adopt(vit)

    def adopt(self, vit: VisionTransformer) -> None:
        """Take over a transformer and name its MoE layers."""
        self.vit = vit
        self.embed_dim = self.num_features = int(vit.embed_dim)
        self.num_prefix_tokens = int(vit.num_prefix_tokens)
        self.depth = len(vit.blocks)
        for name, layer in self.moe_layers():
            layer.name = name

    @property
    def patch_embed(self) -> nn.Module:
        """Timm's patch embedding."""
        return self.vit.patch_embed

    @property
    def blocks(self) -> nn.Module:
        """The blocks in order."""
        return self.vit.blocks

    @property
    def patch_size(self) -> tuple[int, int]:
        """Patch size (h, w) in pixels."""
        h, w = self.vit.patch_embed.patch_size
        return int(h), int(w)

    @property
    def tasks(self) -> list[str]:
        """Tasks that every MoE layer can route."""
        return self.moe_layers()[0][1].tasks

    def moe_layers(self) -> list[tuple[str, ExpertLayer]]:
        """("blocks.3.mlp", layer) in the order in which forward runs them."""
        return [
            (f"blocks.{i}.{part}", layer)
            for i, block in enumerate(self.vit.blocks)
            for part in ("attn", "mlp")
            if isinstance(layer := getattr(block, part, None), ExpertLayer)
        ]

    @property
    def layout(self) -> dict[str, Any]:
        """The structure of all MoE layers as plain data: name -> `ExpertLayer.layout`."""
        return {name: layer.layout for name, layer in self.moe_layers()}

    def forward(self, images: Tensor, task: str | None = None, **options: Any) -> Tensor:
        """As `forward_features`."""
        return self.forward_features(images, task, **options)

    def forward_features(
        self,
        images: Tensor,
        task: str | None = None,
        *,
        token_mask: Tensor | None = None,
        routing: list[Routing] | None = None,
    ) -> Tensor:
        """Images -> tokens after the last norm.

        Args:
            images: (B, C, H, W), sides multiples of the patch size.
            task: may be left out if the model has one task.
            token_mask: (B, L) bool over the patches, False = padding.
            routing: a list to which each MoE layer appends its decisions.

        Returns:
            (B, prefix + L, D).

        Raises:
            ValueError: unknown task, or a mask of another shape.
        """
        x, _ = self._run(images, task, token_mask, routing, take=())
        return self.vit.norm(x)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        task: str | None = None,
        *,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        token_mask: Tensor | None = None,
        routing: list[Routing] | None = None,
    ) -> Any:
        """Outputs of chosen blocks, as timm's method of this name.

        Args:
            images: (B, C, H, W).
            indices: last n blocks if int, all if None, else these blocks.
            task: may be left out if the model has one task.
            return_prefix_tokens: pair each map with its prefix tokens.
            norm: apply the last norm to each.
            stop_early: do not run the blocks after the last chosen one.
            output_fmt: "NCHW" or "NLC".
            intermediates_only: leave the final tokens out.
            token_mask: see `forward_features`.
            routing: see `forward_features`.

        Returns:
            list of maps, or (tokens, list of maps).
        """
        from timm.models._features import feature_take_indices

        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt must be 'NCHW' or 'NLC', got {output_fmt!r}")
        take, last = feature_take_indices(
            self.depth, indices if indices is None or isinstance(indices, int) else list(indices)
        )
        stop = last + 1 if stop_early else self.depth
        x, taken = self._run(images, task, token_mask, routing, take=take, stop=stop)
        taken = [self.vit.norm(y) for y in taken] if norm else taken
        p = self.num_prefix_tokens
        prefix, maps = [y[:, :p] for y in taken], [y[:, p:] for y in taken]
        if output_fmt == "NCHW":
            h, w = self.vit.patch_embed.dynamic_feat_size(tuple(images.shape[-2:]))
            maps = [y.transpose(1, 2).unflatten(2, (h, w)).contiguous() for y in maps]
        out = list(zip(maps, prefix, strict=True)) if return_prefix_tokens else maps
        return out if intermediates_only else (self.vit.norm(x), out)

    def _run(
        self,
        images: Tensor,
        task: str | None,
        token_mask: Tensor | None,
        routing: list[Routing] | None,
        *,
        take: Sequence[int],
        stop: int | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        task, vit = resolve_task(task, self.tasks), self.vit
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
        token_mask = self._with_prefix(token_mask, x)
        attn_mask = None if token_mask is None else token_mask[:, None, None, :]
        taken = []
        for i, block in enumerate(vit.blocks[:stop]):
            x, decisions = self._run_block(block, x, task, token_mask, attn_mask)
            if routing is not None:  # outside the checkpointed part: recomputation adds nothing
                routing.extend(decisions)
            if i in take:
                taken.append(x)
        return x, taken

    def _run_block(
        self, block: nn.Module, x: Tensor, task: str, mask: Tensor | None, attn_mask: Tensor | None
    ) -> tuple[Tensor, list[Routing]]:
        arguments = (x, task, mask, attn_mask) if isinstance(block, MoEBlock) else (x, attn_mask)
        if self.vit.grad_checkpointing and torch.is_grad_enabled():
            out = checkpoint(block, *arguments, use_reentrant=False)
        else:
            out = block(*arguments)
        return out if isinstance(block, MoEBlock) else (out, [])

    def _with_prefix(self, token_mask: Tensor | None, x: Tensor) -> Tensor | None:
        """Prefix tokens are always real."""
        if token_mask is None:
            return None
        patches = x.shape[1] - self.num_prefix_tokens
        if token_mask.shape != (x.shape[0], patches):
            raise ValueError(
                f"token_mask must be (images, patches) = ({x.shape[0]}, {patches}), "
                f"got {tuple(token_mask.shape)}"
            )
        return nn.functional.pad(token_mask, (self.num_prefix_tokens, 0), value=True)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass."""
        self.vit.grad_checkpointing = enable
