"""What MoE MLP and MoE attention share: tasks, routers, blocks of experts, and their surgery.

The whole structure is plain data (`ExpertLayer.layout`), so that a checkpoint can rebuild a
layer after any surgery.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionlab.moe.backends import check_backend
from visionlab.moe.experts import ExpertBlock
from visionlab.moe.router import TaskRouter
from visionlab.registry import suggest

Layout = Mapping[str, Any]
"""``{"experts": [16, 4], "routers": {task: {"top_k": 2, "columns": [0, 1, -1, ...]}}}``"""


class ExpertLayer(nn.Module):
    """Experts in blocks and one router per task.

    Args:
        dim: width of a token.
        layout: see `Layout`.
        normalize_gates: see `TaskRouter`.
        noise_std: see `TaskRouter`.
        backend: see `visionlab.moe.backends`.
    """

    def __init__(
        self, dim: int, *, layout: Layout, normalize_gates: bool, noise_std: float, backend: str
    ) -> None:
        super().__init__()
        check_backend(backend)
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        self.dim, self.backend, self.name = dim, backend, ""
        self.normalize_gates, self.noise_std = normalize_gates, noise_std
        self.experts = nn.ModuleList()
        self.routers = nn.ModuleDict()

    def _grow_from(self, layout: Layout) -> None:
        """Create blocks and routers; called once by the subclass when it knows its sizes."""
        self.experts.extend(self.new_block(n) for n in layout["experts"])
        for task, router in layout["routers"].items():
            self.set_router(task, router["columns"], router["top_k"])

    def new_block(self, experts: int) -> ExpertBlock:
        """A fresh block of this layer's kind of experts."""
        raise NotImplementedError

    # -- what there is -------------------------------------------------------------------------
    @property
    def layout(self) -> dict[str, Any]:
        """The structure as plain data; `layout=` of the constructor's class rebuilds it."""
        routers = {
            t: {"top_k": r.top_k, "columns": list(r.columns)}
            for t, r in self.task_routers().items()
        }
        return {"experts": self.block_sizes, "routers": routers}

    @property
    def block_sizes(self) -> list[int]:
        """Experts in each block."""
        return [b.num_experts for b in self.expert_blocks()]

    @property
    def num_experts(self) -> int:
        """E over all blocks."""
        return sum(self.block_sizes)

    @property
    def top_k(self) -> dict[str, int]:
        """Experts per token of each task."""
        return {task: router.top_k for task, router in self.task_routers().items()}

    @property
    def tasks(self) -> list[str]:
        """Tasks that have a router."""
        return list(self.routers)

    def task_routers(self) -> dict[str, TaskRouter]:
        """Routers by task."""
        return {t: r for t, r in self.routers.items() if isinstance(r, TaskRouter)}

    def expert_blocks(self) -> list[ExpertBlock]:
        """Blocks in the order of the global expert ids."""
        return [b for b in self.experts if isinstance(b, ExpertBlock)]

    def router(self, task: str | None) -> tuple[str, TaskRouter]:
        """Name and router of a task; None stands for the only task.

        Raises:
            ValueError: unknown task, or None with several tasks.
        """
        task = resolve_task(task, self.tasks)
        return task, self.routers[task]  # type: ignore[return-value]

    def weights_for(self, router: TaskRouter) -> tuple[Tensor, ...]:
        """Expert tensors (E', ...) of the blocks that a router can reach, joined.

        A task that knows only the first block reads that block itself, whatever was appended
        later: its results cannot change by a bit.
        """
        reach, used, first = max(router.columns), [], 0
        for block in self.expert_blocks():
            if first > reach:
                break
            used.append(block.tensors())
            first += block.num_experts
        if len(used) == 1:
            return tuple(used[0])
        return tuple(torch.cat(parts) for parts in zip(*used, strict=True))

    # -- surgery -------------------------------------------------------------------------------
    def set_router(self, task: str, columns: Sequence[int], top_k: int) -> TaskRouter:
        """Create the router of a task anew."""
        check_task_name(task)
        if max(columns, default=-1) >= self.num_experts:
            raise ValueError(
                f"the router of '{task}' leads to expert {max(columns)}, the layer has "
                f"{self.num_experts} (0 to {self.num_experts - 1})"
            )
        router = TaskRouter(
            self.dim,
            columns,
            top_k=top_k,
            normalize=self.normalize_gates,
            noise_std=self.noise_std,
        )
        like = next(self.parameters(), None)
        self.routers[task] = router if like is None else router.to(like.device, like.dtype)
        return self.routers[task]  # type: ignore[return-value]

    def add_task(
        self,
        task: str,
        *,
        source: str | Sequence[str] | None = None,
        experts: Sequence[int] | None = None,
        top_k: int | None = None,
    ) -> None:
        """A router for a new task; see `visionlab.moe.add_task`.

        Raises:
            ValueError: the task exists, or an unknown source.
        """
        if task in self.routers:
            raise ValueError(
                f"task '{task}' exists already (tasks: {', '.join(self.tasks)}); "
                "choose another name"
            )
        names = [source] if isinstance(source, str) else list(source or [])
        sources = [self.router(name)[1] for name in names]
        like = sources[0] if sources else self.router(self.tasks[0])[1]
        known = {c for s in sources for c in s.selectable} or set(range(self.num_experts))
        if experts is not None:
            self._check_ids(experts)
        columns = sorted(known if experts is None else known.intersection(experts))
        router = self.set_router(task, columns, like.top_k if top_k is None else top_k)
        if sources:
            with torch.no_grad():
                router.weight.copy_(torch.stack([_mean_row(c, sources) for c in columns]))

    def add_experts(self, n: int, *, tasks: Iterable[str] = ()) -> None:
        """Append a block of n fresh experts; only the routers of ``tasks`` get columns for it."""
        if n < 1:
            raise ValueError(f"add_experts needs n >= 1, got {n}")
        chosen = [self.router(t) for t in tasks]
        first = self.num_experts
        like = next(self.parameters())
        self.experts.append(self.new_block(n).to(like.device, like.dtype))
        for task, old in chosen:
            columns = [*old.columns, *range(first, first + n)]
            router = self.set_router(task, columns, old.top_k)
            with torch.no_grad():
                router.weight[: len(old.columns)].copy_(old.weight)

    def keep_experts(self, keep: Sequence[int], *, compact_router: bool = False) -> None:
        """Drop all experts but ``keep`` (global ids). The order stays, hence every sum too.

        Args:
            keep: experts that stay.
            compact_router: cut the routers' rows too, which may change last bits of the logits;
                by default they are masked and the output of the kept experts is bit-equal.
        """
        self._check_ids(keep)
        kept = sorted(set(keep))
        new_id = {old: i for i, old in enumerate(kept)}
        for router in self.task_routers().values():
            columns = [new_id.get(c, -1) for c in router.columns]
            alive = [i for i, c in enumerate(columns) if c >= 0]
            if len(alive) < router.top_k:
                raise ValueError(
                    f"keeping {len(alive)} experts is fewer than top_k={router.top_k}; keep more "
                    "or lower k first with set_top_k"
                )
            if compact_router:
                router.weight = nn.Parameter(
                    router.weight.detach()[alive], requires_grad=router.weight.requires_grad
                )
                columns = [columns[i] for i in alive]
            router.remap(columns)
        survivors, first = nn.ModuleList(), 0
        for block in self.expert_blocks():
            local = [e - first for e in kept if first <= e < first + block.num_experts]
            if local:
                survivors.append(block.select(local))
            first += block.num_experts
        self.experts = survivors

    def _check_ids(self, experts: Sequence[int]) -> None:
        strays = sorted(set(experts) - set(range(self.num_experts)))
        if strays:
            raise ValueError(
                f"no expert {strays[0]} in this layer; its experts are 0 to {self.num_experts - 1}"
            )

    def set_top_k(self, task: str, top_k: int) -> None:
        """Experts per token of one task, from now on."""
        _, router = self.router(task)
        router.check_top_k(top_k)
        router.top_k = top_k

    # -- checkpoints ---------------------------------------------------------------------------
    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """As torch does, after a check that the checkpoint holds the same experts."""
        name = prefix.rstrip(".") or "the layer"
        for key, value in self.state_dict().items():
            theirs = state_dict.get(prefix + key)
            if theirs is None or not key.startswith(("experts", "routers")):
                continue
            if theirs.shape[0] != value.shape[0]:
                raise ValueError(
                    f"the checkpoint has other experts: {name}.{key} has {theirs.shape[0]} in the "
                    f"checkpoint and {value.shape[0]} here; build the model with the layout that "
                    "was saved with the checkpoint"
                )
            if key.endswith("expert_of_column") and theirs.tolist() != value.tolist():
                raise ValueError(
                    f"the checkpoint has other experts: {name}.{key} maps columns to "
                    f"{theirs.tolist()}, here to {value.tolist()}; build the model with the "
                    "layout that was saved with the checkpoint"
                )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def moe_layers(model: nn.Module) -> list[tuple[str, ExpertLayer]]:
    """(name, layer) of every MoE layer of a model, in the order of its blocks.

    Raises:
        ValueError: there is none.
    """
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, ExpertLayer)]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no MoE layer; make one with visionlab.moe.insert_moe"
        )
    return layers


def _mean_row(expert: int, routers: Sequence[TaskRouter]) -> Tensor:
    """Mean of the router rows that lead to an expert, (D,)."""
    rows = [r.weight[r.columns.index(expert)] for r in routers if expert in r.columns]
    return torch.stack(rows).mean(0)


def resolve_task(task: str | None, tasks: Sequence[str]) -> str:
    """The task itself, or the only one for None; ValueError for anything else."""
    if task is None:
        if len(tasks) == 1:
            return tasks[0]
        raise ValueError(f"pass task=...: this model has {len(tasks)} tasks ({', '.join(tasks)})")
    if task not in tasks:
        raise ValueError(f"no task '{task}' in this model. {suggest(task, tasks)}")
    return task


def check_task_name(task: str) -> None:
    """Raise ValueError unless the name can be part of a parameter name."""
    if not isinstance(task, str) or not task or "." in task or hasattr(nn.ModuleDict(), task):
        raise ValueError(
            f"{task!r} cannot name a task: it must be a non-empty string without '.' that is not "
            "a method of torch modules"
        )


def fresh_layout(num_experts: int, top_k: int, tasks: Sequence[str]) -> dict[str, Any]:
    """One block, every task may use every expert.

    Raises:
        ValueError: no experts, no task, a task twice, or k outside 1..E.
    """
    if num_experts < 1:
        raise ValueError(f"num_experts must be at least 1, got {num_experts}")
    if isinstance(tasks, str) or not tasks or len(set(tasks)) != len(tasks):
        raise ValueError(f"tasks must be a list of different names, got {tasks!r}")
    if not 1 <= top_k <= num_experts:
        raise ValueError(
            f"top_k={top_k} with num_experts={num_experts}; top_k must be from 1 to num_experts"
        )
    columns = list(range(num_experts))
    return {
        "experts": [num_experts],
        "routers": {t: {"top_k": top_k, "columns": columns} for t in tasks},
    }
