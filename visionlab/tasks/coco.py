"""COCO's mean average precision over the pictures of all ranks, of which one may hold more."""

from typing import Any

import torch.distributed as dist
from lightning.fabric.utilities import move_data_to_device
from torchmetrics.detection import MeanAveragePrecision


class CocoMeanAveragePrecision(MeanAveragePrecision):
    """torchmetrics' metric, gathered by itself.

    torchmetrics gathers picture by picture, one collective for each tensor of each picture: ranks
    with different numbers of pictures wait for each other or read each other's wrong tensors (seen
    with 1.9: gloo ends the process).
    """

    def _sync_dist(self, dist_sync_fn: Any = None, process_group: Any = None) -> None:
        names = list(self._reductions)
        own = [move_data_to_device(getattr(self, name), "cpu") for name in names]
        ranks: list[Any] = [None] * dist.get_world_size(process_group)
        dist.all_gather_object(ranks, own, group=process_group)
        for i, name in enumerate(names):
            everywhere = [entry for rank in ranks for entry in rank[i]]
            setattr(self, name, move_data_to_device(everywhere, self.device))
