import pytest
import torch

from visionlab.data.laplacian import LaplacianBatches, LaplacianData


def test_distribution():
    x = next(iter(LaplacianBatches(200_000, 1, scale=2.0)))["image"]
    assert x.shape == (200_000, 1)
    assert x.median().item() == pytest.approx(0.0, abs=0.03)
    assert x.abs().mean().item() == pytest.approx(2.0, rel=0.02)
    assert (x.abs() > 2.0).float().mean().item() == pytest.approx(0.3679, abs=0.005)  # exp(-1)


def test_resumes_in_the_middle_of_an_epoch():
    whole = [b["image"] for b in LaplacianBatches(8, 5, seed=3)]
    broken = LaplacianBatches(8, 5, seed=3)
    steps = iter(broken)
    next(steps), next(steps)
    resumed = LaplacianBatches(8, 5, seed=3)
    resumed.load_state_dict(broken.state_dict())
    rest = [b["image"] for b in resumed]
    assert len(rest) == 3
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], rest, strict=True))
    assert len(list(resumed)) == 5  # the next epoch is whole again


def test_epochs_seeds_and_splits_differ():
    data = LaplacianData(batch_size=8, batches=2)
    train = data.train_dataloader()
    first = next(iter(train))["image"]
    train.set_epoch(1)
    assert not torch.equal(next(iter(train))["image"], first)
    assert not torch.equal(next(iter(data.val_dataloader()))["image"], first)


def test_wrong_numbers():
    with pytest.raises(ValueError, match="at least 1 and scale positive"):
        LaplacianBatches(0, 1)
