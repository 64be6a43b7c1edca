"""The recipes' transforms: uint8 of one size, drawn from torch's generator alone."""

import pytest
import torch

from visionlab.data.randomness import keyed_randomness
from visionlab.data.transforms import evaluation, finetuning, pretraining

IMAGE = torch.randint(
    0, 256, (3, 40, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def drawn(transform, image, key):
    with keyed_randomness(key):
        return transform(image)


@pytest.mark.parametrize("make", [pretraining, finetuning, evaluation])
@pytest.mark.parametrize("shape", [(3, 40, 60), (3, 9, 7)])
def test_bytes_of_one_size_from_any_image(make, shape):
    for key in range(8):
        image = drawn(make(24), IMAGE[:, : shape[1], : shape[2]], key)
        assert image.shape == (3, 24, 24)
        assert image.dtype == torch.uint8


@pytest.mark.parametrize("make", [pretraining, finetuning])
def test_a_key_draws_the_same_again_and_another_key_differs(make):
    a, b = (drawn(make(24), IMAGE, 5) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, drawn(make(24), IMAGE, 6))


def test_without_flip_and_crop_the_image_is_resized_only():
    square = IMAGE[:, :40, :40]
    whole = drawn(pretraining(40, min_area=1.0, horizontal_flip=False), square, 0)
    assert torch.equal(whole, square)


def test_evaluation_takes_the_centre_of_the_resized_image():
    image = torch.zeros(3, 32, 64, dtype=torch.uint8)
    image[:, 2:30, 18:46] = 200  # what a crop of 28 of 32 sees
    assert bool((evaluation(28)(image) == 200).all())
    assert torch.equal(evaluation(28)(image), evaluation(28)(image))
