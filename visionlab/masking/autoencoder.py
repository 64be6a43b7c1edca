"""Masked autoencoder over any timm ViT (He et al., CVPR 2022; ColorMAE, ECCV 2024)."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from visionlab.masking.base import Mask
from visionlab.masking.create import create_mask
from visionlab.masking.decoders import DecoderPlan, as_decoder_plan
from visionlab.masking.keys import GeneratorDraws, IndexedDraws
from visionlab.masking.mask_batch import MaskBatch
from visionlab.masking.positions import initialize_like_mae, looks_trained
from visionlab.masking.reconstruction import Reconstruction
from visionlab.masking.targets import (
    patch_statistics,
    patchify,
    reconstruction_loss,
    take,
    unpatchify,
)
from visionlab.masking.vit import (
    check_vit,
    drop_classifier,
    encode_visible,
    image_grid,
    patch_size,
)

_log = logging.getLogger(__name__)

Key = int | Iterable[int]


@dataclass(frozen=True)
class MAEOutput:
    """Result of one masked forward pass.

    Attributes:
        loss: scalar float32.
        predicted: (B, T, P) predicted patches, in the order of ``ids_target``.
        ids_target: (B, T) places of the predicted patches.
        masks: the masks that were drawn.
    """

    loss: Tensor
    predicted: Tensor
    ids_target: Tensor
    masks: MaskBatch

    @property
    def mask(self) -> Tensor:
        """(B, L) bool, True = hidden."""
        return self.masks.hidden

    @property
    def prediction(self) -> Tensor:
        """(B, L, P): the predicted patches at their places, 0 where nothing was predicted."""
        shape = (*self.mask.shape, self.predicted.shape[2])
        index = self.ids_target[:, :, None].expand_as(self.predicted)
        return self.predicted.new_zeros(shape).scatter(1, index, self.predicted)


class MaskedAutoencoder(nn.Module):
    """Encodes the visible patches with a timm ViT and predicts the pixels of the hidden ones.

    Images are normalised floats (B, C, H, W). Non-square ones work, and any size that the patch
    divides if the backbone was created with ``dynamic_img_size=True``.

    Args:
        backbone: timm ``VisionTransformer`` or ``Eva`` (rotary positions); a classification head
            is dropped. Class and register tokens are never masked.
        mask: a strategy, or its name; without a grid it takes the backbone's.
        decoder: ``standard`` (8 x 512), ``light`` (4 x 256), ``cross_attention``, or a plan of own
            sizes.
        norm_pix: predict patches normalised to zero mean and unit variance, as the paper's best
            runs do.
        repeats: masks per image, so that one decoded image is used several times.
        targets_fraction: share of the hidden patches that is predicted (CrossMAE), drawn per image.
        init: ``mae`` gives the backbone MAE's initialisation and fixed sine-cosine positions,
            ``keep`` leaves it as it is; ``auto`` keeps a backbone that has been trained and
            initialises a fresh one.
        seed: first part of the default key.

    Example:
        >>> import timm, torch
        >>> from visionlab.masking import MaskedAutoencoder, create_mask
        >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0)
        >>> mae = MaskedAutoencoder(vit, create_mask("green", grid=(4, 4)), decoder="light")
        >>> mae(torch.randn(2, 3, 64, 64), key=(0, 0, 0)).loss.shape
        torch.Size([])
    """

    def __init__(
        self,
        backbone: nn.Module,
        mask: Mask | str = "random",
        *,
        decoder: str | DecoderPlan = "standard",
        norm_pix: bool = True,
        repeats: int = 1,
        targets_fraction: float = 1.0,
        init: Literal["auto", "mae", "keep"] = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_vit(backbone)
        _check_settings(repeats, targets_fraction, init)
        if drop_classifier(backbone):
            _log.info("dropped the classification head of the backbone: it would get no gradient")
        _initialize(backbone, init)
        self.backbone: Any = backbone
        self.norm_pix, self.repeats, self.seed = norm_pix, repeats, seed
        self.targets_fraction = targets_fraction
        grid = tuple(backbone.patch_embed.grid_size)  # type: ignore[union-attr, arg-type]
        self.mask = _mask_for(mask, grid, dynamic=bool(backbone.dynamic_img_size))
        channels = patchify(self._blank(), self.patch_size).shape[2]
        width: int = self.backbone.embed_dim  # type: ignore[assignment]
        self.decoder = as_decoder_plan(decoder).build(in_dim=width, out_dim=channels, grid=grid)
        self._calls = 0
        self._compiled: Callable[..., tuple[Tensor, Tensor]] | None = None

    @property
    def patch_size(self) -> tuple[int, int]:
        """Rows and columns of pixels in a patch."""
        return patch_size(self.backbone)

    def forward(
        self,
        images: Tensor,
        *,
        key: Key | None = None,
        index: Tensor | Sequence[int] | None = None,
        epoch: float | None = None,
        mask: MaskBatch | None = None,
    ) -> MAEOutput:
        """Mask, encode, decode, and compare with the hidden pixels.

        Args:
            images: (B, C, H, W) normalised floats.
            key: integers such as (seed, rank, step), which the masks are a pure function of.
                Without a key every call takes the next one of this model's own count, which is not
                saved: pass keys where a resumed run must draw the same masks.
            index: (B,) sample numbers, see :meth:`Mask.__call__`.
            epoch: for scheduled masks.
            mask: masks to use instead of drawing, for B * repeats images.
        """
        grid = image_grid(self.backbone, images)
        key = self._next_key() if key is None else key
        index = self._repeat_index(index, images.device)
        if self.repeats > 1:
            images = images.repeat_interleave(self.repeats, 0)
        masks = self._draw(images, grid, key, index, epoch) if mask is None else mask
        if masks.hidden.shape != (len(images), grid[0] * grid[1]):
            raise ValueError(
                f"expected masks of shape {(len(images), grid[0] * grid[1])} for {len(images)} "
                "images of a "
                f"{grid[0]}x{grid[1]} grid, got {tuple(masks.hidden.shape)}"
            )
        ids_target = self._targets(masks, key, index)
        step = self._compiled or self.masked_step
        loss, predicted = step(images, masks.ids_keep, ids_target, grid)
        return MAEOutput(loss, predicted, ids_target, masks)

    def masked_step(
        self, images: Tensor, ids_keep: Tensor, ids_target: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Loss and predicted patches for given places: tensors only, no drawing (for compile)."""
        patches = patchify(images, self.patch_size)
        tokens = encode_visible(self.backbone, images, patches, ids_keep, grid)
        predicted = self.decoder(tokens, ids_keep, ids_target, grid)
        target = take(patches, ids_target)
        return reconstruction_loss(predicted, target, norm_pix=self.norm_pix), predicted

    def encode(self, images: Tensor) -> Tensor:
        """Tokens (B, prefix + L, D) of whole images: never masked."""
        image_grid(self.backbone, images)
        return self.backbone.forward_features(images)

    @torch.no_grad()
    def reconstruct(
        self,
        images: Tensor,
        *,
        key: Key = (0,),
        epoch: float | None = 0,
        mask: MaskBatch | None = None,
    ) -> Reconstruction:
        """Pictures of the prediction, in the space of the images (also with norm-pix)."""
        grid = image_grid(self.backbone, images)
        masks = self._draw(images, grid, key, None, epoch) if mask is None else mask
        training = self.training
        self.eval()
        try:
            _, predicted = self.masked_step(images, masks.ids_keep, masks.ids_mask, grid)
        finally:
            self.train(training)
        patches = patchify(images.float(), self.patch_size)
        predicted = predicted.float()
        if self.norm_pix:
            mean, deviation = patch_statistics(take(patches, masks.ids_mask))
            predicted = predicted * deviation + mean
        place = masks.ids_mask[:, :, None].expand_as(predicted)
        pasted = patches.scatter(1, place, predicted)
        shown = patches.masked_fill(masks.hidden[:, :, None], 0)
        return Reconstruction(
            image=images.float(),
            masked=unpatchify(shown, self.patch_size, grid),
            prediction=unpatchify(pasted, self.patch_size, grid),
            hidden=masks.hidden,
            grid=grid,
            uses_target_statistics=self.norm_pix,
        )

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the step without the mask drawing, which would break the graph."""
        self._compiled = torch.compile(self.masked_step, *args, **kwargs)

    def describe(self) -> dict[str, Any]:
        """Plain data for the run record."""
        plan = self.decoder.plan
        sizes = {"depth": plan.depth, "dim": plan.dim, "heads": plan.heads}
        return {
            "mask": self.mask.describe(),
            "decoder": {"kind": type(plan).__name__, **sizes},
            "norm_pix": self.norm_pix,
            "repeats": self.repeats,
            "targets_fraction": self.targets_fraction,
        }

    def _draw(
        self,
        images: Tensor,
        grid: tuple[int, int],
        key: Key,
        index: Tensor | None,
        epoch: float | None,
    ) -> MaskBatch:
        mask = self.mask.with_grid(grid)
        seen = images if mask.needs_images else None
        return mask(len(images), images.device, key=key, index=index, images=seen, epoch=epoch)

    def _targets(self, masks: MaskBatch, key: Key, index: Tensor | None) -> Tensor:
        hidden = masks.ids_mask
        if self.targets_fraction == 1:
            return hidden
        count = max(round(hidden.shape[1] * self.targets_fraction), 1)
        key = (*(key if isinstance(key, Iterable) else (key,)), hidden.shape[1])  # another stream
        draws = (
            GeneratorDraws(key, len(hidden), hidden.device)
            if index is None
            else IndexedDraws(key, index)
        )
        chosen = draws.uniform(hidden.shape[1]).topk(count, dim=1).indices
        return hidden.gather(1, chosen.sort(1).values)

    def _next_key(self) -> tuple[int, ...]:
        parallel = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank = torch.distributed.get_rank() if parallel else 0
        self._calls += 1
        return (self.seed, rank, self._calls - 1)

    def _repeat_index(
        self, index: Tensor | Sequence[int] | None, device: torch.device
    ) -> Tensor | None:
        """Sample numbers of the repeated images: each repeat gets masks of its own."""
        if index is None:
            return None
        index = torch.as_tensor(index, device=device)
        if self.repeats == 1:
            return index
        extra = torch.arange(self.repeats, device=device)
        return (index[:, None] * self.repeats + extra).flatten()

    def _blank(self) -> Tensor:
        p, q = self.patch_size
        return torch.zeros(1, _channels(self.backbone), p, q)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}  # a compiled function cannot be copied


def _channels(vit: Any) -> int:
    for layer in vit.patch_embed.modules():
        if isinstance(layer, nn.Conv2d):
            return layer.in_channels
    raise TypeError(f"{type(vit).__name__} embeds patches without a convolution: channels unknown")


def _check_settings(repeats: int, targets_fraction: float, init: str) -> None:
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise ValueError(f"repeats is the number of masks per image, at least 1, got {repeats!r}")
    if not 0 < targets_fraction <= 1:
        raise ValueError(f"targets_fraction lies in (0, 1], got {targets_fraction}")
    if init not in ("auto", "mae", "keep"):
        raise ValueError(f"init is 'auto', 'mae' or 'keep', got {init!r}")


def _initialize(backbone: nn.Module, init: str) -> None:
    if init == "auto" and looks_trained(backbone):
        _log.info("the backbone has been trained: its weights are kept (init='keep')")
    elif init != "keep":
        initialize_like_mae(backbone)


def _mask_for(mask: Mask | str | Mapping[str, Any], grid: Any, *, dynamic: bool) -> Mask:
    if isinstance(mask, str):
        mask = create_mask(mask)
    if not isinstance(mask, Mask):
        raise TypeError(
            f"mask is a strategy such as create_mask('green') or its name, got {mask!r}"
        )
    if mask.grid is not None and mask.grid != grid and not dynamic:
        raise ValueError(
            f"the mask has a grid of {mask.grid[0]}x{mask.grid[1]} patches, the backbone "
            f"{grid[0]}x{grid[1]}; "
            f"use create_mask(..., grid=({grid[0]}, {grid[1]})), or leave the grid out"
        )
    return mask.with_grid(grid)
