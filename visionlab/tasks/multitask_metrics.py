"""The figures of one task over a whole split: top-1/5, AP50 and COCO mAP, mean IoU. In percent."""

import importlib.util
import logging
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from visionlab.heads.average_precision import (
    average_precision_of_rows,
    detection_rows,
    object_rows,
)
from visionlab.heads.faster_rcnn import need_masks

log = logging.getLogger("visionlab")

IGNORE_LABEL, IGNORE_PIXEL = -1, 255


def create_metric(head: nn.Module) -> "TaskMetric":
    """The metric that fits a head, by its ``kind``."""
    kinds = {
        "classification": ClassificationMetric,
        "detection": DetectionMetric,
        "segmentation": SegmentationMetric,
    }
    if getattr(head, "masks", False):
        return DetectionMetric(int(head.num_classes), masks=True)  # type: ignore[arg-type]
    return kinds[str(head.kind)](int(head.num_classes))  # type: ignore[arg-type]


class TaskMetric(nn.Module):
    """Collects predictions over a split, on any number of ranks."""

    main: str  # the figure that stands for the task in a mean over tasks

    def update(self, prediction: Any, batch: Mapping[str, Any]) -> None:
        """Take the predictions of one batch (a head's `predict`)."""
        raise NotImplementedError

    def compute(self) -> dict[str, float]:
        """Name -> percent."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget everything."""
        for metric in self.children():
            metric.reset()  # type: ignore[operator]


class ClassificationMetric(TaskMetric):
    """Top-1, and top-5 where there are more than five classes."""

    main = "top1"

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        tops = [k for k in (1, 5) if k == 1 or num_classes > k]
        for k in tops:
            accuracy = MulticlassAccuracy(
                num_classes, top_k=k, average="micro", ignore_index=IGNORE_LABEL
            )
            self.add_module(f"top{k}", accuracy)

    def update(self, prediction: Tensor, batch: Mapping[str, Any]) -> None:
        """``prediction`` (B, classes)."""
        for metric in self.children():
            metric.update(prediction, batch["label"])  # type: ignore[operator]

    def compute(self) -> dict[str, float]:
        """``top1``, ``top5``."""
        return {n: 100 * float(m.compute()) for n, m in self.named_children()}  # type: ignore[operator]


class SegmentationMetric(TaskMetric):
    """Mean IoU from one confusion matrix over the split; a class that never occurs is left out."""

    main = "miou"

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.confusion = MulticlassConfusionMatrix(num_classes, ignore_index=IGNORE_PIXEL)

    def update(self, prediction: Tensor, batch: Mapping[str, Any]) -> None:
        """``prediction`` (B, H, W)."""
        self.confusion.update(prediction, batch["mask"].long())

    def per_class(self) -> Tensor:
        """(classes,) IoU, not-a-number for a class in neither labels nor predictions."""
        counts = self.confusion.compute().double()
        hits = counts.diagonal()
        return hits / (counts.sum(0) + counts.sum(1) - hits)

    def compute(self) -> dict[str, float]:
        """``miou`` and pixel ``accuracy``."""
        counts = self.confusion.compute().double()
        return {
            "miou": 100 * float(self.per_class().nanmean()),
            "accuracy": 100 * float(counts.diagonal().sum() / counts.sum().clamp(min=1)),
        }


class DetectionMetric(TaskMetric):
    """AP50 by the VOC protocol, and COCO's mAP if faster-coco-eval or pycocotools is installed.

    Args:
        num_classes: number of classes.
        masks: predictions carry instance masks, which COCO's mAP scores besides.
    """

    main = "ap50"

    def __init__(self, num_classes: int, *, masks: bool = False) -> None:
        super().__init__()
        self.kinds: tuple[Literal["bbox", "segm"], ...] = ("bbox", "segm") if masks else ("bbox",)
        self.voc = AveragePrecision50(num_classes)
        backend = _coco_backend()
        if backend is None:
            log.info("COCO mAP is left out: pip install faster-coco-eval (extra 'detection')")
            return
        from visionlab.tasks.coco import CocoMeanAveragePrecision

        self.coco = CocoMeanAveragePrecision(iou_type=self.kinds, backend=backend)
        self.coco.warn_on_many_detections = False  # heads keep at most 100

    def update(self, prediction: list[dict[str, Tensor]], batch: Mapping[str, Any]) -> None:
        """``prediction``: a mapping for each picture."""
        names = ("boxes", "labels", "crowd")
        targets = [dict(zip(names, values)) for values in zip(*(batch[name] for name in names))]
        self.voc.update(prediction, targets, batch["index"])
        if hasattr(self, "coco"):
            real = [
                {"boxes": t["boxes"], "labels": t["labels"], "iscrowd": t["crowd"].long()}
                for t in targets
            ]
            found = [{k: p[k] for k in ("boxes", "scores", "labels")} for p in prediction]
            if "segm" in self.kinds:
                _add_masks(found, prediction, real, batch)
            self.coco.update(found, real)

    def compute(self) -> dict[str, float]:
        """``ap50``; with an extra installed ``coco_map`` (IoU .5 to .95) and ``coco_ap50``.

        With masks also ``coco_mask_map`` and ``coco_mask_ap50``.
        """
        figures = {"ap50": 100 * float(self.voc.compute())}
        if hasattr(self, "coco"):
            coco = self.coco.compute()
            for kind in self.kinds:
                own = "mask_" if kind == "segm" else ""
                theirs = "" if len(self.kinds) == 1 else f"{kind}_"  # torchmetrics' prefix
                figures[f"coco_{own}map"] = 100 * float(coco[f"{theirs}map"])
                figures[f"coco_{own}ap50"] = 100 * float(coco[f"{theirs}map_50"])
        return figures


def _add_masks(
    found: list[dict[str, Tensor]],
    prediction: list[dict[str, Tensor]],
    real: list[dict[str, Tensor]],
    batch: Mapping[str, Any],
) -> None:
    """Masks of predictions and objects, both on the extent of the picture without its padding."""
    need_masks(batch)
    for one, predicted, target, masks in zip(found, prediction, real, batch["masks"]):
        one["masks"] = predicted["masks"].bool()
        height, width = one["masks"].shape[-2:]
        target["masks"] = masks[:, :height, :width].bool()


def _coco_backend() -> Any:
    """The installed package that computes COCO's mAP, or None."""
    for module in ("faster_coco_eval", "pycocotools"):
        if importlib.util.find_spec(module) is not None:
            return module
    return None


class AveragePrecision50(Metric):
    """`visionlab.heads.average_precision_50`, averaged over the classes that occur."""

    full_state_update = False
    higher_is_better = True
    detections: list[Tensor]
    objects: list[Tensor]

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("detections", default=[], dist_reduce_fx="cat")
        self.add_state("objects", default=[], dist_reduce_fx="cat")

    def update(
        self,
        predictions: list[dict[str, Tensor]],
        targets: list[dict[str, Tensor]],
        index: Tensor,
    ) -> None:
        """``index`` (B,) tells the pictures apart, also across ranks."""
        for prediction, target, picture in zip(predictions, targets, index.tolist()):
            self.detections.append(detection_rows(prediction, picture))
            self.objects.append(object_rows(target, picture))

    def compute(self) -> Tensor:
        """() mean AP50; not-a-number without any object."""
        return average_precision_of_rows(
            _joined(self.detections), _joined(self.objects), self.num_classes
        ).nanmean()


def _joined(rows: list[Tensor] | Tensor) -> Tensor:
    """What torchmetrics hands over: a list, or one tensor after gathering."""
    joined = rows if isinstance(rows, Tensor) else torch.cat(rows or [torch.zeros(0, 7)])
    return joined.cpu()
