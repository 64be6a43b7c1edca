import math

import pytest
import torch

from visionlab.heads import LinearClassificationHead, LinearSegmentationHead
from visionlab.heads.average_precision import average_precision_50
from visionlab.tasks.multitask_metrics import (
    AveragePrecision50,
    ClassificationMetric,
    DetectionMetric,
    SegmentationMetric,
    create_metric,
)


def test_top_1_and_top_5_leave_out_unlabelled():
    metric = ClassificationMetric(8)
    scores = torch.arange(8.0, 0, -1).repeat(4, 1)  # class 0 first, 7 last
    metric.update(scores, {"label": torch.tensor([0, 1, 7, -1])})
    figures = metric.compute()
    assert figures["top1"] == pytest.approx(100 / 3)
    assert figures["top5"] == pytest.approx(200 / 3)
    assert list(ClassificationMetric(3).compute.__self__._modules) == ["top1"]


def test_mean_iou_from_one_confusion_matrix():
    """Two batches: IoU over the set, not the mean of batch figures; absent classes left out."""
    metric = SegmentationMetric(4)
    metric.update(torch.tensor([[[0, 0, 1, 1]]]), {"mask": torch.tensor([[[0, 1, 1, 255]]])})
    metric.update(torch.tensor([[[0, 0, 0, 0]]]), {"mask": torch.tensor([[[0, 0, 0, 3]]])})
    per_class = metric.per_class().tolist()
    assert per_class[:2] == pytest.approx([4 / 6, 1 / 2])
    assert math.isnan(per_class[2])
    assert per_class[3] == 0
    assert metric.compute()["miou"] == pytest.approx(100 * (4 / 6 + 1 / 2) / 3)
    metric.reset()
    assert metric.confusion.update_count == 0


def test_detection_metric_equals_the_function():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    found = [
        {"boxes": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([0, 1])},
        {"boxes": boxes[:1], "scores": torch.tensor([0.5]), "labels": torch.tensor([0])},
    ]
    targets = [
        {"boxes": boxes, "labels": torch.tensor([0, 0]), "crowd": torch.tensor([False, True])},
        {"boxes": boxes[1:], "labels": torch.tensor([1]), "crowd": torch.tensor([False])},
    ]
    metric = DetectionMetric(2)
    for i in range(2):
        batch = {k: [targets[i][k]] for k in targets[i]} | {"index": torch.tensor([i])}
        metric.update(found[i : i + 1], batch)
    expected = 100 * float(average_precision_50(found, targets, 2).nanmean())
    assert metric.compute()["ap50"] == pytest.approx(expected)


def test_no_detection_at_all():
    metric = AveragePrecision50(2)
    empty = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0)}
    target = {"boxes": torch.tensor([[0.0, 0, 5, 5]]), "labels": torch.tensor([0]),
              "crowd": torch.tensor([False])}  # fmt: skip
    metric.update([empty], [target], torch.tensor([0]))
    assert metric.compute() == 0


def test_the_metric_follows_the_head():
    assert isinstance(create_metric(LinearClassificationHead(4, 3)), ClassificationMetric)
    assert isinstance(create_metric(LinearSegmentationHead(4, 3)), SegmentationMetric)
