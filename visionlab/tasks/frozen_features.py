"""How good are the features of a frozen encoder? k-NN and a light linear probe.

Both are cheap, need no augmentation, and are reported beside the same encoder untrained.
"""

import copy
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionlab import config as configs
from visionlab.data.randomness import mix, seed_all
from visionlab.heads.classifier import pool_features
from visionlab.tasks.tables import format_table
from visionlab.tasks.trust import add_trust_code


@dataclass
class LabelledFeatures:
    """Features (N, D) float32 with labels (N,) int64, on the CPU."""

    features: Tensor
    labels: Tensor


@torch.no_grad()
def extract_features(
    encode: Callable[[Tensor], Tensor], batches: Iterable[Mapping[str, Tensor]]
) -> LabelledFeatures:
    """Run ``encode`` over normalised batches with ``image`` and ``label``."""
    features, labels = [], []
    for batch in batches:
        features.append(encode(batch["image"]).float().cpu())
        labels.append(batch["label"].cpu())
    return LabelledFeatures(torch.cat(features), torch.cat(labels))


def knn_accuracy(
    train: LabelledFeatures, test: LabelledFeatures, *, k: int = 20, temperature: float = 0.07
) -> float:
    """Weighted k-nearest-neighbour accuracy by cosine similarity (arXiv 1805.01978, Sec. 3.4).

    Raises:
        ValueError: k exceeds the number of training features.
    """
    if not 0 < k <= len(train.features):
        raise ValueError(f"k is {k}, but there are {len(train.features)} training features")
    bank = F.normalize(train.features, dim=1)
    classes = int(train.labels.max()) + 1
    correct = 0
    for queries, labels in zip(test.features.split(1024), test.labels.split(1024)):
        similarity, neighbours = (F.normalize(queries, dim=1) @ bank.T).topk(k, dim=1)
        votes = torch.zeros(len(queries), classes)
        weights = (similarity / temperature).exp()
        votes.scatter_add_(1, train.labels[neighbours], weights)
        correct += int((votes.argmax(1) == labels).sum())
    return correct / len(test.labels)


def linear_probe_accuracy(
    train: LabelledFeatures,
    test: LabelledFeatures,
    *,
    epochs: int = 20,
    lr: float = 1e-2,
    batch_size: int = 512,
    seed: int = 0,
) -> float:
    """Accuracy of a linear layer on standardised features (AdamW, cosine to zero).

    Standardising takes the place of the BatchNorm without affine of MAE's probe.
    """
    mean, std = train.features.mean(0), train.features.std(0) + 1e-6
    x, z = (train.features - mean) / std, (test.features - mean) / std
    generator = torch.Generator().manual_seed(mix(seed, 0x11EA))
    head = nn.Linear(x.shape[1], int(train.labels.max()) + 1)
    nn.init.normal_(head.weight, std=0.01, generator=generator)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.0, fused=True)
    steps = epochs * -(-len(x) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x), generator=generator).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(head(x[chosen]), train.labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return float((head(z).argmax(1) == test.labels).float().mean())


class FrozenFeatures:
    """Evaluation after training: probe and k-NN of the encoder, beside itself untrained.

    Args:
        k: neighbours.
        probe_epochs: passes of the linear probe over the training features.
        train_limit: number of training images to take; all if None.
        split: split that is scored.
    """

    title = "Frozen encoder"

    def __init__(
        self,
        *,
        k: int = 20,
        probe_epochs: int = 20,
        train_limit: int | None = None,
        split: str = "test",
    ) -> None:
        self.k, self.probe_epochs = k, probe_epochs
        self.train_limit, self.split = train_limit, split

    def run(self, task: Any, data: Any, output: Path) -> list[dict[str, Any]]:
        """Rows for the encoder before and after training."""
        rows = []
        for label, model in (("untrained", untrained(task)), ("trained", task.model)):
            train, test = self._features(model, data)
            probe = linear_probe_accuracy(train, test, epochs=self.probe_epochs, seed=task.seed)
            rows.append({
                "encoder": label,
                "linear probe": round(probe, 4),
                f"{self.k}-NN": round(knn_accuracy(train, test, k=self.k), 4),
                "train images": len(train.labels),
                "test images": len(test.labels),
            })  # fmt: skip
        return rows

    def _features(self, model: nn.Module, data: Any) -> tuple[LabelledFeatures, LabelledFeatures]:
        backbone = model.get_submodule("backbone").eval()
        device = next(backbone.parameters()).device

        def encode(images: Tensor) -> Tensor:
            return pool_features(backbone, data.normalise(images.to(device)), "mean")

        train = extract_features(encode, self._limited(data.loader("train")))
        return train, extract_features(encode, data.loader(self.split))

    def _limited(self, loader: Any) -> Iterable[Any]:
        taken = 0
        for batch in loader:
            if self.train_limit is not None and taken >= self.train_limit:
                return
            taken += len(batch["label"])
            yield batch


def untrained(task: Any) -> nn.Module:
    """The task's model as it was before the first step: same config, same seed."""
    if task.run_config is None:
        raise ValueError("the task has no run_config; run it through visionlab.tasks.training")
    section = task.run_config["task"]
    if "model" not in section:
        raise ValueError(f"the task '{section.get('name')}' has no encoder whose features to judge")
    node = copy.deepcopy(section["model"])
    seed_all(task.seed)
    return configs.build(node, key="model").to(next(task.model.parameters()).device)


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of ``tools/evaluate.py frozen``."""
    add_trust_code(parser)
    parser.add_argument("checkpoint", type=Path, help="last.ckpt of a training run")
    parser.add_argument("--k", type=int, default=20, help="neighbours (default 20)")
    parser.add_argument("--epochs", type=int, default=20, help="of the linear probe (default 20)")
    parser.add_argument("--split", default="test", help="split that is scored (default test)")


def run(args: Namespace) -> None:
    """Print the table of a training checkpoint."""
    from visionlab.tasks.training import load_task

    task, data = load_task(args.checkpoint, trust_code=args.trust_code)
    evaluation = FrozenFeatures(k=args.k, probe_epochs=args.epochs, split=args.split)
    print(format_table(evaluation.run(task, data, args.checkpoint.parent), evaluation.title))
