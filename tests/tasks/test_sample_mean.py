"""Means over samples, exact for batches of unequal size."""

import math

import torch

from visionlab.tasks.sample_mean import SampleMean


def test_batches_count_by_their_samples():
    mean, values = SampleMean(), torch.arange(13.0)
    for batch in values.split(5):
        mean.update(batch.mean(), len(batch))
    assert mean.compute() == values.mean()
    mean.reset()
    mean.update(torch.tensor(2.0), 4)
    assert mean.compute() == 2.0


def test_half_precision_is_summed_in_double():
    mean = SampleMean()
    for _ in range(3000):
        mean.update(torch.tensor(0.1, dtype=torch.bfloat16), 1)
    assert mean.compute().item() == float(torch.tensor(0.1, dtype=torch.bfloat16))


def test_a_value_that_is_no_number_is_not_hidden():
    mean = SampleMean()
    mean.update(torch.tensor(1.0), 2)
    mean.update(torch.tensor(float("nan")), 1)
    assert math.isnan(mean.compute())


def test_the_graph_of_a_loss_is_not_kept():
    mean, loss = SampleMean(), torch.tensor(1.0, requires_grad=True)
    mean.update(2 * loss, 1)
    assert not mean.total.requires_grad
