"""Mixture-of-experts layers for multi-task vision transformers, which come apart again.

    layer = MoELayer(384, 384, num_experts=16, top_k=4, tasks=("cls", "seg"))
    output, routing = layer(tokens, task="seg")

References: Mod-Squad (arXiv 2212.08066), Multi-Task Heterogeneous Training (arXiv 2306.17165).
"""

from visionlab.registry import lazy_exports

_EXPORTS = {
    "Routing": "router",
    "TaskRouter": "router",
    "ExpertLayer": "structure",
    "MoEOutput": "layer",
    "MoELayer": "layer",
    "MoEAttention": "attention",
    "MoEBlock": "vit",
    "MoEVisionTransformer": "vit",
    "insert_moe": "insertion",
    "RoutingLoss": "losses",
    "MutualInformation": "information",
    "mutual_information": "information",
    "balance_loss": "losses",
    "z_loss": "losses",
    "concentration_loss": "losses",
    "Usage": "expert_usage",
    "usage": "expert_usage",
    "prune_to_task": "surgery",
    "add_task": "surgery",
    "add_experts": "surgery",
    "set_top_k": "surgery",
    "freeze_except": "surgery",
    "adaptation_patterns": "surgery",
    "count_parameters": "surgery",
    "backbone_flops": "flops",
    "Cost": "flops",
    "cost": "flops",
    "cost_table": "flops",
    "BACKENDS": "backends",
    "resolve_backend": "backends",
}
__getattr__, __dir__ = lazy_exports(
    __name__,
    _EXPORTS
    | {
        n: n
        for n in (
            *("router", "experts", "structure", "dispatch", "loop", "grouped", "backends", "layer"),
            *(
                "attention",
                "vit",
                "insertion",
                "upcycling",
                "information",
                "losses",
                "expert_usage",
                "surgery",
                "flops",
            ),
            "kernels",
        )
    },
)
