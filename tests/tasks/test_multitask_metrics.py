import math

import pytest
import torch

from visionlab.heads import FasterRCNNHead, LinearClassificationHead, LinearSegmentationHead
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


def _instances() -> tuple[dict, dict]:
    """A prediction and a batch: two squares, one found to the pixel, one with half of its mask."""
    masks = torch.zeros(2, 20, 24, dtype=torch.uint8)
    masks[0, 2:8, 2:8] = masks[1, 10:18, 12:20] = 1
    boxes = torch.tensor([[2.0, 2, 8, 8], [12.0, 10, 20, 18]])
    found = masks.bool()
    found[1, :, 16:] = False
    prediction = {"boxes": boxes, "scores": torch.tensor([0.9, 0.8]),
                  "labels": torch.tensor([0, 0]), "masks": found}  # fmt: skip
    batch = {"boxes": [boxes], "labels": [torch.tensor([0, 0])], "index": torch.tensor([0]),
             "crowd": [torch.zeros(2, dtype=torch.bool)],
             "masks": [torch.nn.functional.pad(masks, (0, 8, 0, 12))]}  # fmt: skip
    return prediction, batch


def test_instance_masks_have_an_average_precision_of_their_own():
    pytest.importorskip("faster_coco_eval")
    prediction, batch = _instances()
    metric = DetectionMetric(1, masks=True)
    metric.update([prediction], batch)
    figures = metric.compute()
    assert figures["ap50"] == pytest.approx(100)
    assert figures["coco_map"] == pytest.approx(100)
    # the second mask has IoU .5: right at that threshold alone, half of the objects at the others
    assert figures["coco_mask_ap50"] == pytest.approx(100, abs=1)
    assert figures["coco_mask_map"] == pytest.approx(100 * (1 + 9 * 0.5) / 10, abs=1)
    assert set(figures) == {
        "ap50", "coco_map", "coco_ap50", "coco_mask_map", "coco_mask_ap50",
    }  # fmt: skip


def test_masks_are_missed_with_a_sentence():
    pytest.importorskip("faster_coco_eval")
    prediction, batch = _instances()
    del batch["masks"]
    with pytest.raises(ValueError, match="predicts instance masks, the data carry none"):
        DetectionMetric(1, masks=True).update([prediction], batch)


def test_a_head_with_masks_is_scored_on_them():
    head = FasterRCNNHead(32, 3, patch_size=8, masks=True, channels=16, scales=[1], hidden=16)
    assert create_metric(head).kinds == ("bbox", "segm")
