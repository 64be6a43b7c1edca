"""Pictures of predictions."""

import pytest
import timm
import torch

from visionlab.masking import MaskedAutoencoder, create_mask
from visionlab.masking.decoders import LightDecoder
from visionlab.masking.reconstruction import to_viewable
from visionlab.masking.targets import patchify


@pytest.fixture
def model():
    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=(32, 48), embed_dim=32, depth=1, num_heads=2, num_classes=0
    )
    return MaskedAutoencoder(vit, "random", decoder=LightDecoder(depth=1, dim=32, heads=4))


IMAGES = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 4 - 2


def test_visible_patches_are_true_and_hidden_ones_predicted(model):
    masks = create_mask("random", (2, 3), 0.5)(2, key=(4,))
    pictures = model.reconstruct(IMAGES, mask=masks)
    true, shown, predicted = (
        patchify(x, (16, 16)) for x in (IMAGES, pictures.masked, pictures.prediction)
    )
    hidden = masks.mask
    assert torch.equal(predicted[~hidden], true[~hidden])
    assert torch.equal(shown[~hidden], true[~hidden])
    assert not shown[hidden].any()
    assert (predicted[hidden] != true[hidden]).all(-1).all()
    assert torch.equal(pictures.image, IMAGES)


def test_norm_pix_pictures_get_the_patches_own_mean_and_deviation(model):
    with torch.no_grad():
        model.decoder.head.weight.zero_()
        model.decoder.head.bias.fill_(0.5)  # predicts half a deviation above the mean everywhere
    masks = create_mask("random", (2, 3), 0.5)(2, key=(4,))
    pictures = model.reconstruct(IMAGES, mask=masks)
    true, predicted = patchify(IMAGES, (16, 16)), patchify(pictures.prediction, (16, 16))
    expected = true.mean(-1, keepdim=True) + 0.5 * true.std(-1, keepdim=True)
    got, want = predicted[masks.mask], expected.expand_as(true)[masks.mask]
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    assert pictures.uses_target_statistics


def test_plain_pixels_are_shown_as_predicted(model):
    model.norm_pix = False
    with torch.no_grad():
        model.decoder.head.weight.zero_()
        model.decoder.head.bias.fill_(0.25)
    pictures = model.reconstruct(IMAGES)
    predicted = patchify(pictures.prediction, (16, 16))
    assert torch.equal(
        predicted[pictures.hidden], torch.full_like(predicted[pictures.hidden], 0.25)
    )
    assert not pictures.uses_target_statistics


def test_drawing_pictures_changes_nothing(model):
    model.train()
    state = torch.get_rng_state()
    first, second = model.reconstruct(IMAGES), model.reconstruct(IMAGES)
    assert torch.equal(first.prediction, second.prediction)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert not first.prediction.requires_grad


def test_viewable_pictures(model):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)
    pictures = model.reconstruct(IMAGES)
    image, masked, prediction = pictures.viewable(mean, std)
    scale, shift = torch.tensor(std).view(3, 1, 1), torch.tensor(mean).view(3, 1, 1)
    torch.testing.assert_close(image, (IMAGES * scale + shift).clamp(0, 1))
    for picture in (image, masked, prediction):
        assert picture.min() >= 0
        assert picture.max() <= 1
    hidden = patchify(masked, (16, 16))[pictures.hidden]
    assert torch.equal(hidden, torch.full_like(hidden, 0.5))


def test_one_number_serves_all_channels():
    torch.testing.assert_close(
        to_viewable(torch.zeros(1, 3, 2, 2), (0.25,), (2.0,)), torch.full((1, 3, 2, 2), 0.25)
    )
    with pytest.raises(ValueError, match="mean holds 1 or 3 numbers, got 2"):
        to_viewable(torch.zeros(1, 3, 2, 2), (0.1, 0.2))
    with pytest.raises(ValueError, match="std holds 1 or 3 numbers, got 4"):
        to_viewable(torch.zeros(1, 3, 2, 2), std=(1.0,) * 4)
