import pytest
import torch

from visionlab.tasks.frozen_features import (
    LabelledFeatures,
    extract_features,
    knn_accuracy,
    linear_probe_accuracy,
)


def blobs(n, spread, seed):
    """Three classes around three directions."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    features = torch.eye(3)[labels] * 4 + torch.randn(n, 3, generator=generator) * spread
    return LabelledFeatures(features, labels)


def test_separable_classes_are_found():
    train, test = blobs(90, 0.3, 0), blobs(60, 0.3, 1)
    assert knn_accuracy(train, test, k=5) == 1.0
    assert linear_probe_accuracy(train, test, epochs=30, batch_size=32) == 1.0


def test_noise_gives_chance():
    train, test = blobs(900, 1e4, 0), blobs(900, 1e4, 1)
    assert abs(knn_accuracy(train, test, k=20) - 1 / 3) < 0.08
    assert abs(linear_probe_accuracy(train, test, epochs=3) - 1 / 3) < 0.08


def test_knn_equals_a_plain_loop():
    train, test = blobs(60, 2.0, 0), blobs(30, 2.0, 1)
    correct = 0
    for query, label in zip(test.features, test.labels):
        similarity = torch.cosine_similarity(query[None], train.features)
        nearest = similarity.argsort(descending=True)[:7]
        votes = [sum(float((similarity[i] / 0.07).exp()) for i in nearest if train.labels[i] == c)
                 for c in range(3)]  # fmt: skip
        correct += votes.index(max(votes)) == int(label)
    assert knn_accuracy(train, test, k=7) == correct / 30


def test_probe_is_a_function_of_its_seed():
    train, test = blobs(60, 3.0, 0), blobs(60, 3.0, 1)
    torch.manual_seed(5)
    first = linear_probe_accuracy(train, test, epochs=2, seed=1)
    torch.manual_seed(6)
    assert linear_probe_accuracy(train, test, epochs=2, seed=1) == first


def test_k_larger_than_the_bank():
    with pytest.raises(ValueError, match="but there are 9"):
        knn_accuracy(blobs(9, 1, 0), blobs(9, 1, 0), k=10)


def test_extraction_keeps_order():
    batches = [
        {"image": torch.full((2, 1), float(i)), "label": torch.full((2,), i)} for i in range(3)
    ]
    found = extract_features(lambda x: x * 2, batches)
    assert found.features.flatten().tolist() == [0, 0, 2, 2, 4, 4]
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
