import importlib.util

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from visionlab.heads.average_precision import average_precision_50


def picture(boxes, labels, scores=None, crowd=None):
    out = {"boxes": torch.tensor(boxes).reshape(-1, 4).float(), "labels": torch.tensor(labels)}
    if scores is not None:
        out["scores"] = torch.tensor(scores)
    if crowd is not None:
        out["crowd"] = torch.tensor(crowd)
    return out


A, B, FAR = [0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]


def test_by_hand():
    """Right, wrong, right over two objects: precision 1, 1/2, 2/3 -> 1/2 * 1 + 1/2 * 2/3."""
    found = [picture([A, FAR, B], [0, 0, 0], [0.9, 0.8, 0.7])]
    real = [picture([A, B], [0, 0])]
    assert average_precision_50(found, real, 1)[0] == pytest.approx(5 / 6)


def test_a_second_hit_of_one_object_is_wrong():
    found = [picture([A, A, B], [0, 0, 0], [0.9, 0.8, 0.7])]
    assert average_precision_50(found, [picture([A, B], [0, 0])], 1)[0] == pytest.approx(5 / 6)


def test_crowd_neither_counts_nor_harms():
    real = [picture([A, B], [0, 0], crowd=[False, True])]
    found = [picture([B, B, A], [0, 0, 0], [0.9, 0.8, 0.7])]
    assert average_precision_50(found, real, 1)[0] == 1


def test_absent_classes_and_empty_pictures():
    found = [picture([A], [1], [0.9]), picture([], [], [])]
    real = [picture([], []), picture([A], [0])]
    precision = average_precision_50(found, real, 3)
    assert precision[0] == 0
    assert precision[1:].isnan().all()


def test_as_many_predictions_as_targets():
    with pytest.raises(ValueError, match="1 predictions for 0 targets"):
        average_precision_50([picture([], [], [])], [], 1)


def random_set(seed, pictures=30, classes=3):
    rng = np.random.default_rng(seed)
    found, real = [], []
    for _ in range(pictures):
        n = rng.integers(0, 4)
        corner = rng.uniform(0, 60, (n, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(8, 30, (n, 2))], 1)
        labels = rng.integers(0, classes, n)
        real.append({"boxes": torch.tensor(boxes), "labels": torch.tensor(labels)})
        near = boxes + rng.normal(0, 3, boxes.shape)
        noise = rng.uniform(0, 40, (2, 2))
        noise = np.concatenate([noise, noise + 15], 1)
        all_boxes = torch.tensor(np.concatenate([near, noise]))
        all_labels = torch.tensor(np.concatenate([labels, rng.integers(0, classes, 2)]))
        scores = torch.tensor(rng.uniform(0, 1, n + 2))
        found.append({"boxes": all_boxes, "labels": all_labels, "scores": scores})
    return found, real


def slow_average_precision(found, real, label):
    """The protocol, detection by detection."""
    rows = [
        (float(s), i, j)
        for i, p in enumerate(found)
        for j, s in enumerate(p["scores"])
        if p["labels"][j] == label
    ]
    total = sum(int((t["labels"] == label).sum()) for t in real)
    taken, right = set(), []
    for _, i, j in sorted(rows, reverse=True):
        mine = [k for k, c in enumerate(real[i]["labels"]) if c == label]
        overlaps = [float(box_iou(found[i]["boxes"][j : j + 1], real[i]["boxes"][k : k + 1]))
                    for k in mine]  # fmt: skip
        best = int(np.argmax(overlaps)) if overlaps else -1
        hit = best >= 0 and overlaps[best] >= 0.5 and (i, mine[best]) not in taken
        if hit:
            taken.add((i, mine[best]))
        right.append(hit)
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return sum(precision[k:].max() for k in range(len(right)) if right[k]) / total


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_slow_protocol(seed):
    found, real = random_set(seed)
    fast = average_precision_50(found, real, 3)
    for label in range(3):
        assert fast[label] == pytest.approx(slow_average_precision(found, real, label))


@pytest.mark.skipif(
    importlib.util.find_spec("faster_coco_eval") is None,
    reason="faster-coco-eval (extra 'detection') is not installed",
)
def test_close_to_coco():
    """COCO samples the curve at 101 points and matches the best free object."""
    from torchmetrics.detection import MeanAveragePrecision

    found, real = random_set(7, pictures=100)
    coco = MeanAveragePrecision(backend="faster_coco_eval", iou_thresholds=[0.5])
    coco.update(found, real)
    assert float(average_precision_50(found, real, 3).mean()) == pytest.approx(
        float(coco.compute()["map_50"]), abs=0.02
    )
