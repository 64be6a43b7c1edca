import pytest
import torch

from visionlab.backbones import create_backbone
from visionlab.heads import (
    FCOSDetectionHead,
    LinearClassificationHead,
    LinearSegmentationHead,
    MultiTaskModel,
    UPerSegmentationHead,
)


def heads() -> dict:
    return {
        "digits": LinearClassificationHead(32, 10),
        "letters": LinearClassificationHead(32, 26),
        "boxes": FCOSDetectionHead(32, 3, channels=32, scales=[1], num_convs=1),
        "pixels": LinearSegmentationHead(32, 4),
    }


def backbone(moe: bool, **options):
    vit = create_backbone(
        "vit", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2,
        dynamic_img_size=True, **options
    )  # fmt: skip
    if not moe:
        return vit
    tasks = ["digits", "letters", "boxes", "pixels"]
    return create_backbone("moe_vit", backbone=vit, tasks=tasks, num_experts=4, top_k=2)


@pytest.mark.parametrize("moe", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (48, 24)])
def test_every_head_on_any_image_size(moe, size):
    model = MultiTaskModel(backbone(moe), heads()).eval()
    images = torch.randn(2, 3, *size)
    assert model(images, task="digits").shape == (2, 10)
    assert model(images, task="letters").shape == (2, 26)
    assert model(images, task="pixels").shape == (2, 4, *size)
    found = model.predict(images, task="boxes")
    assert {"boxes", "scores", "labels"} <= set(found[0])


def test_a_moe_backbone_is_told_the_task():
    model = MultiTaskModel(backbone(True), heads()).eval()
    images = torch.randn(2, 3, 32, 32)
    routing = []
    first = model.features(images, task="digits", routing=routing).tokens
    assert [r.task for r in routing] == ["digits"]
    assert not torch.equal(first, model.features(images, task="letters").tokens)


def test_padding_reaches_no_expert_and_no_output():
    model = MultiTaskModel(backbone(True), heads()).eval()
    images = torch.randn(1, 3, 32, 32)
    noisy = images.clone()
    noisy[:, :, 16:] = 100
    size = torch.tensor([[16, 32]])
    routing = []
    clean = model(images, task="digits", size=size, routing=routing)
    assert torch.equal(clean, model(noisy, task="digits", size=size))
    assert int(routing[0].tokens()) == 1 + 8


def test_wrong_names_and_widths():
    model = MultiTaskModel(backbone(False), heads())
    with pytest.raises(ValueError, match=r"no task 'digit' in this model. Did you mean 'digits'"):
        model(torch.randn(1, 3, 32, 32), task="digit")
    with pytest.raises(ValueError, match="at least one head"):
        MultiTaskModel(backbone(False), {})
    with pytest.raises(ValueError, match="features of width 16, the backbone gives 32"):
        MultiTaskModel(backbone(False), {"a": LinearClassificationHead(16, 2)})
    with pytest.raises(ValueError, match=r"names of tasks, without '.', to heads: .*a\.b"):
        MultiTaskModel(backbone(False), {"a.b": LinearClassificationHead(32, 2)})
    with pytest.raises(TypeError, match=r"the head 'a' is a Linear, not one of visionlab.heads"):
        MultiTaskModel(backbone(False), {"a": torch.nn.Linear(32, 2)})
    head = UPerSegmentationHead(32, 2, channels=32, scales=[1], blocks=[9])
    with pytest.raises(ValueError, match=r"reads the blocks \[9\], the backbone has"):
        MultiTaskModel(backbone(False), {"a": head})
    with pytest.raises(ValueError, match=r"expected \(1, 2\), got \(2,\)"):
        model(torch.randn(1, 3, 32, 32), task="digits", size=torch.tensor([32, 32]))
    with pytest.raises(TypeError, match=r"normalised float images, got torch\.uint8"):
        model(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), task="digits")
    with pytest.raises(ValueError, match="routes no task 'extra'"):
        MultiTaskModel(backbone(True), {"extra": LinearClassificationHead(32, 2)})


def test_a_convolutional_backbone_is_refused():
    net = create_backbone("resnet10t")
    model = MultiTaskModel(net, {"a": LinearClassificationHead(net.num_features, 2)})
    with pytest.raises(TypeError, match="has no patch embedding"):
        model(torch.randn(1, 3, 32, 32), task="a")


def test_conv_stem_of_the_vit():
    model = MultiTaskModel(backbone(False, stem="conv"), heads())
    assert model(torch.randn(2, 3, 32, 32), task="digits").shape == (2, 10)
    with pytest.raises(ValueError, match="stem is 'cnn'"):
        backbone(False, stem="cnn")
    with pytest.raises(ValueError, match="square patches of 2, 4, 8"):
        create_backbone("vit", img_size=36, patch_size=12, embed_dim=32, num_heads=2, stem="conv")
