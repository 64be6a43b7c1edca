"""Average precision at IoU 0.5 by the Pascal VOC protocol (Everingham et al. 2010, all points).

Each detection belongs to the object of its class that it overlaps most; the best scored one of
an object is right, later ones are wrong. Objects marked crowd (VOC: difficult) neither count nor
harm. COCO's mAP is another measure; torchmetrics has it.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

IOU = 0.5


def average_precision_50(
    predictions: Sequence[Mapping[str, Tensor]],
    targets: Sequence[Mapping[str, Tensor]],
    num_classes: int,
) -> Tensor:
    """AP50 of each class.

    Args:
        predictions: for each picture "boxes" (n, 4) xyxy, "scores" (n,), "labels" (n,).
        targets: for each picture "boxes" (m, 4), "labels" (m,), and "crowd" (m,) if there is any.
        num_classes: number of classes.

    Returns:
        (num_classes,), not-a-number for a class without objects.

    Raises:
        ValueError: another number of predictions than of targets.
    """
    if len(predictions) != len(targets):
        raise ValueError(
            f"{len(predictions)} predictions for {len(targets)} targets; give one of each picture"
        )
    found = [detection_rows(p, i) for i, p in enumerate(predictions)]
    real = [object_rows(t, i) for i, t in enumerate(targets)]
    return average_precision_of_rows(
        torch.cat(found or [torch.zeros(0, 7)]), torch.cat(real or [torch.zeros(0, 7)]), num_classes
    )


def detection_rows(prediction: Mapping[str, Tensor], picture: int) -> Tensor:
    """(n, 7) float64: picture, class, score, box."""
    boxes = prediction["boxes"]
    columns = [torch.full((len(boxes),), picture), prediction["labels"], prediction["scores"]]
    return _rows(columns, boxes)


def object_rows(target: Mapping[str, Tensor], picture: int) -> Tensor:
    """(m, 7) float64: picture, class, crowd, box."""
    boxes = target["boxes"]
    crowd = target.get("crowd")
    columns = [
        torch.full((len(boxes),), picture),
        target["labels"],
        torch.zeros(len(boxes)) if crowd is None else crowd,
    ]
    return _rows(columns, boxes)


def _rows(columns: Sequence[Tensor], boxes: Tensor) -> Tensor:
    wide = [c.to(boxes.device, torch.float64)[:, None] for c in columns]
    return torch.cat([*wide, boxes.to(torch.float64).reshape(-1, 4)], dim=1)


def average_precision_of_rows(detections: Tensor, objects: Tensor, num_classes: int) -> Tensor:
    """(num_classes,) AP50 from `detection_rows` and `object_rows` of all pictures."""
    return torch.stack(
        [
            _one_class(detections[detections[:, 1] == c], objects[objects[:, 1] == c])
            for c in range(num_classes)
        ]
    )


def _one_class(detections: Tensor, objects: Tensor) -> Tensor:
    counted = int((objects[:, 2] == 0).sum())
    if not counted:
        return torch.tensor(float("nan"), dtype=torch.float64)
    detections = detections[detections[:, 2].argsort(descending=True, stable=True)]
    best = _best_object(detections, objects)
    ignored = (best >= 0) & (objects[best.clamp(min=0), 2] > 0)
    right = (best >= 0) & _first_of_each(best) & ~ignored
    right = right[~ignored].to(torch.float64)
    hits = right.cumsum(0)
    precision = hits / torch.arange(1, len(right) + 1, dtype=torch.float64)
    # the envelope: the best precision at this recall or beyond
    envelope = precision.flip(0).cummax(0).values.flip(0) if len(right) else precision
    return (envelope * right).sum() / counted


def _best_object(detections: Tensor, objects: Tensor) -> Tensor:
    """(n,) row of the most overlapped object of the same picture, -1 if below the threshold."""
    best = torch.full((len(detections),), -1)
    for picture in objects[:, 0].unique():
        mine = (detections[:, 0] == picture).nonzero()[:, 0]
        theirs = (objects[:, 0] == picture).nonzero()[:, 0]
        if len(mine):
            overlap, which = box_iou(detections[mine, 3:], objects[theirs, 3:]).max(1)
            best[mine] = torch.where(overlap >= IOU, theirs[which], -1)
    return best


def _first_of_each(values: Tensor) -> Tensor:
    """(n,) bool: whether no earlier element has the same value."""
    same = values[:, None] == values[None, :]
    return ~same.tril(-1).any(1)
