import pytest
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

from visionlab.data import mixture as module
from visionlab.data.images import normalise
from visionlab.data.mixture import StepSet, TaskData, TaskMixture


class Pictures(Dataset):
    """Numbered pictures with the labels of one kind."""

    def __init__(self, kind, length=6, size=(8, 8), classes=3):
        self.kind, self.length, self.size = kind, length, size
        self.classes = [f"c{i}" for i in range(classes)]

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        image = tv_tensors.Image(torch.full((3, *self.size), i, dtype=torch.uint8))
        if self.kind == "classification":
            return {"image": image, "label": i % 3}
        if self.kind == "segmentation":
            return {"image": image, "mask": tv_tensors.Mask(torch.full(self.size, i % 3))}
        n = i % 2
        boxes = tv_tensors.BoundingBoxes(
            torch.tensor([[1.0, 1, 5, 5]] * n).reshape(-1, 4), format="XYXY", canvas_size=self.size
        )
        return {"image": image, "boxes": boxes, "labels": torch.zeros(n, dtype=torch.int64),
                "crowd": torch.zeros(n, dtype=torch.bool)}  # fmt: skip


def data(kind, batch_size=2, **options):
    sets = {s: Pictures(kind, **options) for s in ("train", "val")}
    return TaskData(sets, batch_size, image_size=16)


def mixture(**options):
    kinds = {"a": "classification", "b": "detection", "c": "segmentation"}
    return TaskMixture({t: data(k) for t, k in kinds.items()}, **options)


def test_a_step_holds_a_padded_batch_of_each_task():
    step = next(iter(mixture().train_dataloader()))
    assert [pick["task"] for pick in step] == ["a", "b", "c"]
    for pick in step:
        assert pick["image"].shape == (2, 3, 16, 16)
        assert pick["size"].tolist() == [[8, 8], [8, 8]]
        assert (pick["image"][:, :, 8:] == 0).all()
    assert step[0]["label"].shape == (2,)
    assert (step[2]["mask"][:, 8:] == 255).all()
    assert type(step[1]["boxes"][0]) is torch.Tensor


def test_unpadded_batches_carry_no_size():
    task = TaskData({"train": Pictures("classification")}, 2, image_size=8)
    assert "size" not in next(iter(TaskMixture({"a": task}).train_dataloader()))[0]


def test_ranks_share_each_pick(monkeypatch):
    steps = {}
    for rank in range(2):
        monkeypatch.setattr(module, "rank_and_world", lambda rank=rank: (rank, 2))
        steps[rank] = StepSet(mixture().datasets, mixture().step_schedule())[3]
    monkeypatch.setattr(module, "rank_and_world", lambda: (0, 1))
    whole = StepSet(mixture().datasets, mixture().step_schedule())[3]
    for one, first, second in zip(whole, steps[0], steps[1]):
        assert one["index"].tolist() == [*first["index"].tolist(), *second["index"].tolist()]


def test_spread_deals_whole_picks(monkeypatch):
    options = {"schedule": "sampled", "tasks_per_step": 4, "spread": True}
    monkeypatch.setattr(module, "rank_and_world", lambda: (1, 2))
    data_module = mixture(**options)
    step = StepSet(data_module.datasets, data_module.step_schedule(), spread=True)[0]
    expected = [task for task, _ in data_module.step_schedule().draws(0)][1::2]
    assert [pick["task"] for pick in step] == expected
    assert all(len(pick["index"]) == 2 for pick in step)
    with pytest.raises(ValueError, match="3 picks in a step cannot be dealt evenly to 2 ranks"):
        StepSet(mixture().datasets, mixture().step_schedule(), spread=True)


def test_batches_smaller_than_the_number_of_ranks(monkeypatch):
    monkeypatch.setattr(module, "rank_and_world", lambda: (0, 4))
    with pytest.raises(
        ValueError, match=r"batch_size of a, b, c is below the number of ranks \(4\)"
    ):
        StepSet(mixture().datasets, mixture().step_schedule())


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_change_nothing(workers):
    loader = mixture(schedule="sampled", num_workers=workers, steps_per_epoch=5).train_dataloader()
    steps = [(p["task"], p["index"].tolist()) for step in loader for p in step]
    expected = [
        (task, [i for _, i in keys])
        for s in range(5)
        for task, keys in mixture(schedule="sampled").step_schedule().picks(s)
    ]
    assert steps == expected


def test_an_epoch_goes_on_in_its_middle():
    data_module = mixture(steps_per_epoch=4)
    loader = data_module.train_dataloader()
    loader.first_step = lambda: 6
    rest = [step[0]["index"].tolist() for step in loader]
    assert len(loader) == 4
    assert rest == [[i for _, i in data_module.step_schedule().picks(s)[0][1]] for s in (6, 7)]


def test_validation_sees_every_sample_once():
    loaders = mixture().loaders("val")
    assert list(loaders) == ["a", "b", "c"]
    seen = [i for batch in loaders["b"] for i in batch["index"].tolist()]
    assert seen == list(range(6))


def test_normalise_takes_bytes_and_shares():
    images = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    expected = normalise(torch.ones(1, 3, 2, 2), (0.5,) * 3, (0.25,) * 3)
    assert torch.allclose(normalise(images, (0.5,) * 3, (0.25,) * 3), expected)
    assert expected.unique().tolist() == [2.0]


def test_mistakes():
    with pytest.raises(ValueError, match="at least one task"):
        TaskMixture({})
    with pytest.raises(ValueError, match=r"no schedule 'join'. Did you mean 'joint'"):
        mixture(schedule="join")
    with pytest.raises(ValueError, match=r"no split 'vla'. Did you mean 'val'"):
        TaskData({"vla": Pictures("detection")}, 2, image_size=8)
    with pytest.raises(ValueError, match="batch_size is 0"):
        data("detection", batch_size=0)
    with pytest.raises(ValueError, match="the split 'train' holds no sample"):
        data("detection", length=0)
    with pytest.raises(ValueError, match=r"the task has no split 'test', only \['train', 'val'\]"):
        data("detection").split("test")
    sets = {"train": Pictures("detection"), "val": Pictures("detection", classes=4)}
    with pytest.raises(ValueError, match="'train' and 'val' have different classes"):
        TaskData(sets, 2, image_size=16).classes()
    small = TaskData({"train": Pictures("classification")}, 2, image_size=4)
    with pytest.raises(ValueError, match="is 8 px long, image_size is 4"):
        next(iter(TaskMixture({"a": small}).train_dataloader()))
    for steps in (-1, 0):
        with pytest.raises(ValueError, match=f"steps_per_epoch is {steps}"):
            mixture(steps_per_epoch=steps).train_dataloader()
    with pytest.raises(ValueError, match="at least one split"):
        TaskData({}, 2, image_size=8)
    with pytest.raises(ValueError, match="image_size names no side for train"):
        TaskData({"train": Pictures("detection")}, 2, image_size={})
    with pytest.raises(ValueError, match="one positive std per channel"):
        mixture(std=(1.0, 0.0, 1.0))


def test_augmentation_is_a_function_of_epoch_and_index():
    def noise(sample):
        return {**sample, "image": torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)}

    task = TaskData({"train": Pictures("classification", length=2)}, 2, image_size=8,
                    transforms={"train": noise})  # fmt: skip
    steps = StepSet({"a": task}, TaskMixture({"a": task}).step_schedule())
    first, again, later = steps[0][0], steps[0][0], steps[1][0]
    assert torch.equal(first["image"], again["image"])
    order = first["index"].argsort(), later["index"].argsort()
    assert not torch.equal(first["image"][order[0]], later["image"][order[1]])


def test_a_run_goes_on_only_with_epochs_of_its_length():
    loader = mixture(steps_per_epoch=4).train_dataloader()
    loader.load_state_dict(loader.state_dict())
    with pytest.raises(ValueError, match="checkpoint has 5 steps in an epoch, this run 4"):
        loader.load_state_dict({"steps_per_epoch": 5})
