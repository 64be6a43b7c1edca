"""Detection on a plain ViT: simple feature pyramid, then torchvision's FCOS (Tian et al. 2019).

torchvision supplies towers, assignment, loss and decoding. Added here: sums instead of means (so
that ranks share one normaliser), locations at the centre of their cells as in the paper, where
torchvision takes the corners, and one output that gives losses and boxes in any mode of the module.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS, FCOSHead

from visionlab.heads.features import Features, LossSum, check_classes, check_dim
from visionlab.heads.pyramid import SCALES, SimpleFeaturePyramid


@dataclass(frozen=True)
class FCOSOutput:
    """Raw output of the FCOS head.

    Attributes:
        maps: "cls_logits" (B, A, classes), "bbox_regression" (B, A, 4), "bbox_ctrness" (B, A, 1).
        anchors: (A, 4) px, one square as wide as the stride around each location, all levels.
        per_level: locations on each level; they sum to A.
        sizes: (B, 2) int64, height and width px of each picture.
    """

    maps: dict[str, Tensor]
    anchors: Tensor
    per_level: list[int]
    sizes: Tensor


class FCOSDetectionHead(nn.Module):
    """Boxes without anchors to tune.

    Args:
        dim: width of the backbone.
        num_classes: number of classes, without a background class.
        channels: width of pyramid and towers; a multiple of 32 (group norm).
        scales: levels of the pyramid, see `SimpleFeaturePyramid`.
        num_convs: convolutions in each tower.
        score_threshold: predictions below it are dropped.
        nms_threshold: IoU above which the weaker of two boxes of one class is dropped.
        max_detections: boxes kept for one picture.
    """

    kind = "detection"

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        channels: int = 256,
        scales: Sequence[float] = SCALES,
        num_convs: int = 4,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.6,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        if channels < 32 or channels % 32:
            raise ValueError(f"the FCOS head needs channels in multiples of 32, got {channels}")
        self.dim, self.num_classes = dim, check_classes(num_classes)
        pyramid = SimpleFeaturePyramid(dim, channels, scales=scales)
        self.fcos = FCOS(
            pyramid,
            num_classes,
            head=_SummedFCOSHead(channels, 1, num_classes, num_convs),
            score_thresh=score_threshold,
            nms_thresh=nms_threshold,
            detections_per_img=max_detections,
        )

    def forward(self, features: Features) -> FCOSOutput:
        """Logits, distances and centreness at every location of the pyramid."""
        check_dim(self, self.dim, features)
        levels = list(self.fcos.backbone(features.map).values())
        # losses and box decoding in float32 also under autocast
        maps = {name: value.float() for name, value in self.fcos.head(levels).items()}
        per_level = [level.shape[-2] * level.shape[-1] for level in levels]
        return FCOSOutput(maps, self._anchors(features, levels), per_level, features.sizes)

    def _anchors(self, features: Features, levels: list[Tensor]) -> Tensor:
        patch = features.image_size[0] / features.grid[0]
        scales = self.fcos.backbone.scales
        return torch.cat([_cells(level, patch / scale) for level, scale in zip(levels, scales)])

    def loss(self, outputs: FCOSOutput, batch: dict) -> LossSum:
        """Focal, GIoU and centreness losses, summed over positive locations (their count)."""
        targets = training_targets(batch, self.num_classes)
        anchors = [outputs.anchors] * len(targets)
        parts = self.fcos.compute_loss(targets, outputs.maps, anchors, outputs.per_level)
        count = parts.pop("count")
        detached = {name: value.detach() for name, value in parts.items()}
        return LossSum(torch.stack(list(parts.values())).sum(), count, detached)

    @torch.no_grad()
    def predict(self, outputs: FCOSOutput) -> list[dict[str, Tensor]]:
        """For each picture: "boxes" (n, 4) xyxy px, "scores" (n,), "labels" (n,)."""
        maps = {k: list(v.split(outputs.per_level, dim=1)) for k, v in outputs.maps.items()}
        anchors = list(outputs.anchors.split(outputs.per_level))
        shapes = [(int(h), int(w)) for h, w in outputs.sizes.tolist()]
        return self.fcos.postprocess_detections(maps, [anchors] * len(shapes), shapes)


class _SummedFCOSHead(FCOSHead):
    """torchvision's loss times its own normaliser, which comes along as "count"."""

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        means = super().compute_loss(targets, head_outputs, anchors, matched_idxs)
        positives = (torch.stack(matched_idxs) >= 0).sum().to(torch.float32)
        sums = {name: value * positives.clamp(min=1) for name, value in means.items()}
        return sums | {"count": positives}


def _cells(level: Tensor, stride: float) -> Tensor:
    """(h*w, 4): the cells of a level, row by row, as boxes of one stride around their centre."""
    height, width = level.shape[-2:]
    y = (torch.arange(height, device=level.device) + 0.5) * stride
    x = (torch.arange(width, device=level.device) + 0.5) * stride
    centre_y, centre_x = (c.reshape(-1) for c in torch.meshgrid(y, x, indexing="ij"))
    half = stride / 2
    corners = [centre_x - half, centre_y - half, centre_x + half, centre_y + half]
    return torch.stack(corners, dim=1)


def training_targets(
    batch: dict, num_classes: int, *, first_label: int = 0
) -> list[dict[str, Tensor]]:
    """Boxes, labels and masks of a batch as torchvision's detectors take them.

    Crowd boxes and boxes narrower than a thousandth of a pixel do not train. Labels of a batch
    start at 0; ``first_label=1`` makes room for the background class of Faster R-CNN.

    Raises:
        ValueError: another number of labels than of boxes, or a label outside the classes.
    """
    targets = []
    for i, (boxes, labels) in enumerate(zip(batch["boxes"], batch["labels"])):
        if len(boxes) != len(labels):
            raise ValueError(f"{len(boxes)} boxes, but {len(labels)} labels; give each box one")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
            raise ValueError(
                f"the labels {int(labels.min())} to {int(labels.max())} are outside 0 to "
                f"{num_classes - 1}, the classes of this head"
            )
        keep = ((boxes[:, 2:] - boxes[:, :2]) > 1e-3).all(1) & ~batch["crowd"][i]
        target = {"boxes": boxes[keep].float(), "labels": labels[keep] + first_label}
        if "masks" in batch:
            target["masks"] = batch["masks"][i][keep]
        targets.append(target)
    return targets
