"""Linear classification on the class token or on the mean of the patch tokens."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionlab.heads.features import Features, LossSum, check_classes, check_dim

IGNORE_LABEL = -1


class LinearClassificationHead(nn.Module):
    """Pool, then one linear layer.

    Args:
        dim: width of the backbone.
        num_classes: number of classes.
        pool: "token" takes the class token, "mean" the mean over patches inside the picture.
        label_smoothing: share of the target spread over all classes in training.

    Example:
        >>> head = LinearClassificationHead(192, 10)
    """

    kind = "classification"

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        pool: Literal["token", "mean"] = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if pool not in ("token", "mean"):
            raise ValueError(f"pool is 'token' or 'mean', got {pool!r}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        self.dim, self.num_classes = dim, check_classes(num_classes)
        self.pool, self.label_smoothing = pool, label_smoothing
        self.linear = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Features) -> Tensor:
        """(B, classes) logits."""
        check_dim(self, self.dim, features)
        return self.linear(self._pooled(features))

    def _pooled(self, features: Features) -> Tensor:
        if self.pool == "token":
            if not features.prefix:
                raise ValueError("pool='token' needs a class token, the backbone has none: 'mean'")
            return features.tokens[:, 0]
        valid = features.valid.flatten(1).unsqueeze(-1).to(features.tokens.dtype)
        patches = features.tokens[:, features.prefix :]
        return (patches * valid).sum(1) / valid.sum(1)

    def loss(self, outputs: Tensor, batch: dict) -> LossSum:
        """Cross entropy with ``batch["label"]`` (B,) int64; the label -1 is left out."""
        label = batch["label"]
        total = F.cross_entropy(
            outputs.float(),
            label,
            reduction="sum",
            ignore_index=IGNORE_LABEL,
            label_smoothing=self.label_smoothing,
        )
        return LossSum(total, (label != IGNORE_LABEL).sum().to(torch.float32))

    def predict(self, outputs: Tensor) -> Tensor:
        """(B, classes) probabilities."""
        return outputs.float().softmax(-1)
