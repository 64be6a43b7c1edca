import pytest
import torch
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import box_iou

from visionlab.heads.detection import FCOSDetectionHead, training_targets
from visionlab.heads.features import Features


def small_head(**options) -> FCOSDetectionHead:
    torch.manual_seed(0)
    return FCOSDetectionHead(32, 3, **{"channels": 32, "scales": [2, 1], "num_convs": 1, **options})


def test_loss_is_torchvisions_mean_times_positives(features, boxes_batch):
    head = small_head()
    outputs = head(features)
    loss = head.loss(outputs, boxes_batch)
    head.fcos.head.__class__ = FCOSHead  # torchvision's own means
    means = head.fcos.compute_loss(
        training_targets(boxes_batch, 3), outputs.maps, [outputs.anchors] * 3, outputs.per_level
    )
    assert loss.count > 0
    assert torch.allclose(loss.mean, sum(means.values()))
    assert set(loss.parts) == {"classification", "bbox_regression", "bbox_ctrness"}


def test_loss_of_a_batch_is_the_sum_over_its_pictures(features, boxes_batch):
    head = small_head()
    whole = head.loss(head(features), boxes_batch)
    parts = []
    for i in range(3):
        one = Features(features.tokens[i : i + 1], (4, 4), (32, 32), features.sizes[i : i + 1])
        batch = {k: v[i : i + 1] for k, v in boxes_batch.items()}
        parts.append(head.loss(head(one), batch))
    assert torch.allclose(whole.total, sum(p.total for p in parts), rtol=1e-5)
    assert whole.count == sum(p.count for p in parts)


def test_crowd_and_degenerate_boxes_do_not_train(boxes_batch):
    targets = training_targets(boxes_batch, 3)
    assert [len(t["boxes"]) for t in targets] == [2, 0, 1]
    assert targets[2]["masks"].shape == (1, 32, 32)
    assert training_targets(boxes_batch, 3, first_label=1)[0]["labels"].tolist() == [2, 1]


def test_locations_are_cell_centres(features):
    outputs = small_head()(features)
    assert outputs.per_level == [64, 16]
    fine, coarse = outputs.anchors.split(outputs.per_level)
    assert fine[0].tolist() == [0, 0, 4, 4]  # stride 8 / 2, around (2, 2)
    assert coarse[1].tolist() == [8, 0, 16, 8]
    assert coarse[-1].tolist() == [24, 24, 32, 32]


def test_learns_to_find_the_boxes_of_three_pictures(features, boxes_batch):
    head = small_head()
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        head.loss(head(features), boxes_batch).mean.backward()
        optimizer.step()
    head.train()  # predictions do not depend on the mode
    found = head.predict(head(features))
    best = found[0]["scores"].argsort(descending=True)[:2]
    overlap = box_iou(found[0]["boxes"][best], boxes_batch["boxes"][0])
    assert overlap.max(1).values.min() > 0.6
    assert set(found[0]["labels"][best].tolist()) == {0, 1}
    assert found[1]["scores"].max() < 0.3 if len(found[1]["scores"]) else True


def test_boxes_stay_inside_unpadded_pictures(features):
    smaller = Features(features.tokens, (4, 4), (32, 32), torch.tensor([[20, 24]] * 3))
    head = small_head(score_threshold=0.0)
    for found in head.predict(head(smaller)):
        assert found["boxes"][:, 0::2].max() <= 24
        assert found["boxes"][:, 1::2].max() <= 20


def test_channels_fit_group_norm():
    for channels in (48, 0):
        with pytest.raises(ValueError, match=f"multiples of 32, got {channels}"):
            small_head(channels=channels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([9], "outside 0 to 2"), ([-1], "labels -1 to -1 are outside"), ([0, 1], "1 boxes, but 2")],
)
def test_labels_outside_the_classes_are_named(labels, message):
    batch = {
        "boxes": [torch.tensor([[1.0, 1, 9, 9]])],
        "labels": [torch.tensor(labels)],
        "crowd": [torch.zeros(len(labels), dtype=torch.bool)],
    }
    with pytest.raises(ValueError, match=message):
        training_targets(batch, 3)
