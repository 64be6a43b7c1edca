import pytest
import torch

from visionlab.heads.faster_rcnn import FasterRCNNHead


def small_head(*, masks: bool) -> FasterRCNNHead:
    torch.manual_seed(0)
    return FasterRCNNHead(32, 3, patch_size=8, masks=masks, channels=16, scales=[2, 1], hidden=32)


@pytest.mark.parametrize("masks", [False, True])
def test_every_loss_trains_in_any_mode(features, boxes_batch, masks):
    head = small_head(masks=masks).eval()
    loss = head.loss(head(features), boxes_batch)
    loss.mean.backward()
    assert loss.count == 3
    names = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
    assert set(loss.parts) == names | ({"loss_mask"} if masks else set())
    assert all(p.grad is not None for p in head.parameters())
    assert not any(m.training for m in head.modules())  # the mode is as it was


def test_the_heads_of_vitdet_train(features, boxes_batch):
    torch.manual_seed(0)
    options = {"channels": 16, "scales": [2, 1], "hidden": 32, "box_convs": 4, "rpn_convs": 2}
    head = FasterRCNNHead(32, 3, patch_size=8, masks=True, **options)
    convs = [m for m in head.roi_heads.box_head.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convs) == 4
    assert len(list(head.rpn.head.conv)) == 2
    head.loss(head(features), boxes_batch).mean.backward()
    assert all(p.grad is not None for p in head.parameters())


def test_labels_are_ours_and_masks_are_pasted(features, boxes_batch):
    head = small_head(masks=True)
    optimizer = torch.optim.Adam(head.parameters(), 3e-3)
    for _ in range(25):
        optimizer.zero_grad()
        head.loss(head(features), boxes_batch).mean.backward()
        optimizer.step()
    found = head.predict(head(features))
    assert len(found) == 3
    first = found[0]
    assert len(first["boxes"]) > 0
    assert first["masks"].shape == (len(first["boxes"]), 32, 32)
    assert first["masks"].dtype == torch.bool
    assert first["labels"].min() >= 0
    assert first["labels"].max() <= 2
    top = first["scores"].argmax()
    assert first["labels"][top] in (0, 1)


def test_pictures_without_objects_alone(features, boxes_batch):
    head = small_head(masks=False)
    empty = {k: [v[1]] * 3 if isinstance(v, list) else v for k, v in boxes_batch.items()}
    loss = head.loss(head(features), empty)
    assert torch.isfinite(loss.total)
