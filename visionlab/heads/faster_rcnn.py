"""Two-stage detection, with instance masks on request: torchvision's Faster and Mask R-CNN."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from visionlab.heads.detection import training_targets
from visionlab.heads.features import Features, LossSum, check_classes, check_dim
from visionlab.heads.pyramid import SCALES, SimpleFeaturePyramid


@dataclass(frozen=True)
class PyramidOutput:
    """Feature levels and the extents that the region heads need to read them."""

    levels: dict[str, Tensor]
    images: ImageList


class FasterRCNNHead(nn.Module):
    """Region proposals, then boxes and, with ``masks=True``, instance masks.

    Sampling of proposals draws from torch's generator, as torchvision does; only the FCOS head
    promises runs that are equal after a resume or on another number of ranks.

    Args:
        dim: width of the backbone.
        num_classes: number of classes, without the background (added inside).
        patch_size: stride of the backbone in px; anchors are 8 cells of their level wide.
        masks: predict an instance mask for each box; batches then carry "masks".
        channels: width of the pyramid.
        scales: levels of the pyramid, see `SimpleFeaturePyramid`.
        hidden: width of the box head.
        box_convs: convolutions of the box head before its linear layer; 0 is torchvision's head of
            two linear layers, 4 with layer norm is that of ViTDet (arXiv 2203.16527, A.2).
        rpn_convs: convolutions of the proposal head, 2 in ViTDet.
        score_threshold: predictions below it are dropped.
        max_detections: boxes kept for one picture.
    """

    kind = "detection"

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        patch_size: int = 16,
        masks: bool = False,
        channels: int = 256,
        scales: Sequence[float] = SCALES,
        hidden: int = 1024,
        box_convs: int = 0,
        rpn_convs: int = 1,
        score_threshold: float = 0.05,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        self.dim, self.num_classes, self.masks = dim, check_classes(num_classes), masks
        self.pyramid = SimpleFeaturePyramid(dim, channels, scales=scales)
        names = [str(i) for i in range(len(scales))]
        anchors = _anchors(patch_size, scales)
        detector = (MaskRCNN if masks else FasterRCNN)(
            self.pyramid,
            num_classes + 1,
            rpn_anchor_generator=anchors,
            rpn_head=RPNHead(channels, anchors.num_anchors_per_location()[0], rpn_convs),
            box_roi_pool=MultiScaleRoIAlign(names, output_size=7, sampling_ratio=2),
            box_score_thresh=score_threshold,
            box_detections_per_img=max_detections,
            **({"mask_roi_pool": MultiScaleRoIAlign(names, 14, 2)} if masks else {}),
        )
        self.rpn, self.roi_heads = detector.rpn, detector.roi_heads
        self.roi_heads.box_head = _box_head(channels, hidden, box_convs)
        self.roi_heads.box_predictor = FastRCNNPredictor(hidden, num_classes + 1)

    def forward(self, features: Features) -> PyramidOutput:
        """The levels of the pyramid; regions are proposed in `loss` and `predict`."""
        check_dim(self, self.dim, features)
        levels = {name: level.float() for name, level in self.pyramid(features.map).items()}
        shapes = [(int(h), int(w)) for h, w in features.sizes.tolist()]
        # torchvision reads only the extent of the image batch
        extent = features.tokens.new_empty((len(shapes), 0, *features.image_size))
        return PyramidOutput(levels, ImageList(extent, shapes))

    def loss(self, outputs: PyramidOutput, batch: dict) -> LossSum:
        """Proposal, box and mask losses: torchvision's means times the number of pictures."""
        if self.masks:
            need_masks(batch)
        targets = training_targets(batch, self.num_classes, first_label=1)
        with _mode(self.rpn, True), _mode(self.roi_heads, True):
            proposals, rpn_losses = self.rpn(outputs.images, outputs.levels, targets)
            _, roi_losses = self.roi_heads(
                outputs.levels, proposals, outputs.images.image_sizes, targets
            )
        count = torch.tensor(float(len(targets)), device=batch["image"].device)
        parts = {name: value * count for name, value in (rpn_losses | roi_losses).items()}
        detached = {name: value.detach() for name, value in parts.items()}
        return LossSum(torch.stack(list(parts.values())).sum(), count, detached)

    @torch.no_grad()
    def predict(self, outputs: PyramidOutput) -> list[dict[str, Tensor]]:
        """For each picture: "boxes" (n, 4) xyxy px, "scores", "labels" (n,), "masks" (n, H, W)."""
        shapes = outputs.images.image_sizes
        with _mode(self.rpn, False), _mode(self.roi_heads, False):
            proposals, _ = self.rpn(outputs.images, outputs.levels)
            found, _ = self.roi_heads(outputs.levels, proposals, shapes)
        for prediction, shape in zip(found, shapes):
            prediction["labels"] = prediction["labels"] - 1
            if self.masks:
                pasted = paste_masks_in_image(prediction["masks"], prediction["boxes"], shape)
                prediction["masks"] = pasted[:, 0] > 0.5
        return found


def need_masks(batch: Mapping[str, Any]) -> None:
    """Raise unless a batch carries instance masks.

    Raises:
        ValueError: it does not.
    """
    if "masks" not in batch:
        raise ValueError(
            "the head predicts instance masks, the data carry none; read them (masks: true of "
            "the reader), or set the head's masks=false"
        )


def _anchors(patch_size: int, scales: Sequence[float]) -> AnchorGenerator:
    sizes = tuple((round(8 * patch_size / scale),) for scale in scales)
    return AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))


def _box_head(channels: int, hidden: int, convs: int) -> nn.Module:
    if not convs:
        return TwoMLPHead(channels * 7 * 7, hidden)
    return FastRCNNConvFCHead((channels, 7, 7), [channels] * convs, [hidden], LayerNorm2d)


@contextmanager
def _mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Losses exist only in train mode; neither part holds dropout or running statistics."""
    before = module.training
    module.train(training)
    try:
        yield
    finally:
        module.train(before)
