"""Put MoE layers into any timm vision transformer, fresh or from its trained weights."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from timm.layers import Attention, Mlp
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from visionlab.moe.attention import MoEAttention
from visionlab.moe.layer import MoELayer
from visionlab.moe.upcycling import upcycle_attention, upcycle_mlp
from visionlab.moe.vit import MoEBlock, MoEVisionTransformer
from visionlab.registry import suggest

PLACEMENTS = ("all", "every_second", "last_two", "last_half")


def insert_moe(
    vit: nn.Module,
    *,
    layers: str | Sequence[int] = "every_second",
    num_experts: int = 16,
    top_k: int = 4,
    hidden_dim: int | None = None,
    tasks: Sequence[str] = ("default",),
    attention: bool = False,
    attention_experts: int | None = None,
    attention_top_k: int | None = None,
    upcycle: bool = False,
    backend: str = "auto",
    noise_std: float = 0.0,
    normalize_gates: bool | None = None,
    layout: Mapping[str, Any] | None = None,
) -> MoEVisionTransformer:
    """A copy of a ViT in which chosen blocks have MoE layers.

    Args:
        vit: a timm VisionTransformer.
        layers: "all", "every_second" (blocks 1, 3, ...), "last_two", "last_half", or indices
            (negative ones count from the end).
        num_experts: E of each layer.
        top_k: k.
        hidden_dim: hidden width of one expert; None = the dense width / k (equal FLOPs).
        tasks: names; each gets a router in every layer.
        attention: mixtures in the attention too.
        attention_experts: E there; None = ``num_experts``.
        attention_top_k: k there. None = the number of heads (each expert is one head, one shared
            key and value head, as in Mod-Squad), or ``top_k`` when upcycling.
        upcycle: start from the trained weights with an equal output. Experts as wide as the
            dense MLP are copies of it; experts of width dense / k are its slices, whose routers
            start out choosing one slice each ("virtual groups", arXiv 2410.07524); then k must
            divide E. Attention experts are copies of the whole multi-head attention.
        backend: see `visionlab.moe.backends`.
        noise_std: see `visionlab.moe.router.TaskRouter`.
        normalize_gates: see `visionlab.moe.layer.MoELayer`.
        layout: `MoEVisionTransformer.layout` of a model after surgery; replaces layers,
            num_experts, top_k, tasks and the choice of attention.

    Returns:
        The new model; ``vit`` stays as it is.

    Raises:
        TypeError: not a timm ViT of plain blocks.
        ValueError: a layer that does not exist, widths that upcycling cannot serve.
    """
    model = copy.deepcopy(_checked(vit))
    upcycle_now = upcycle and layout is None  # else the weights come from a checkpoint
    common: dict[str, Any] = {
        "backend": backend,
        "noise_std": noise_std,
        "normalize_gates": normalize_gates,
    }
    if layout:
        _check_layout(layout, len(model.blocks))
    mlps = _names(layout, "mlp") if layout else chosen_layers(layers, len(model.blocks))
    attentions = _names(layout, "attn") if layout else mlps if attention else []
    for i in sorted({*mlps, *attentions}):
        block: Any = model.blocks[i]
        k_attention = attention_top_k
        if k_attention is None:
            k_attention = top_k if upcycle else block.attn.num_heads
        attn, mlp = None, None
        if i in attentions:
            attn = _make_attention(
                block.attn,
                experts=num_experts if attention_experts is None else attention_experts,
                top_k=k_attention,
                heads=block.attn.num_heads if upcycle else 1,
                upcycle=upcycle_now,
                tasks=tasks,
                layout=layout[f"blocks.{i}.attn"] if layout else None,
                **common,
            )
        if i in mlps:
            mlp = _make_mlp(
                block.mlp,
                experts=num_experts,
                top_k=top_k,
                hidden_dim=hidden_dim,
                upcycle=upcycle_now,
                tasks=tasks,
                layout=layout[f"blocks.{i}.mlp"] if layout else None,
                **common,
            )
        model.blocks[i] = MoEBlock(block, attention=attn, mlp=mlp)
    return MoEVisionTransformer(model)


def chosen_layers(layers: str | Sequence[int], depth: int) -> list[int]:
    """Block indices of a placement, sorted.

    Raises:
        ValueError: unknown placement or index.
    """
    if isinstance(layers, str):
        if layers not in PLACEMENTS:
            raise ValueError(f"no placement '{layers}'. {suggest(layers, PLACEMENTS)}")
        start = {"all": 0, "every_second": 1, "last_two": depth - 2, "last_half": depth // 2}
        return list(range(max(start[layers], 0), depth, 2 if layers == "every_second" else 1))
    wrong = [i for i in layers if not -depth <= i < depth]
    if wrong or not layers:
        raise ValueError(
            f"layers={list(layers)} for a transformer of {depth} blocks; pass indices from "
            f"{-depth} to {depth - 1}, or one of {', '.join(PLACEMENTS)}"
        )
    return sorted({i % depth for i in layers})


def _names(layout: Mapping[str, Any], part: str) -> list[int]:
    """Blocks whose ``part`` a layout describes."""
    return [int(n.split(".")[1]) for n in layout if n.endswith(part)]


def _check_layout(layout: Mapping[str, Any], depth: int) -> None:
    known = [f"blocks.{i}.{part}" for i in range(depth) for part in ("attn", "mlp")]
    for name, layer in layout.items():
        if name not in known:
            raise ValueError(
                f"the layout names the layer '{name}', the transformer has {depth} blocks; give "
                "the layout with the backbone that it was saved with"
            )
        if not isinstance(layer, Mapping) or not {"experts", "routers"} <= set(layer):
            raise ValueError(f"the layout of '{name}' needs 'experts' and 'routers', got {layer!r}")


def _checked(vit: nn.Module) -> VisionTransformer:
    if not isinstance(vit, VisionTransformer):
        raise TypeError(
            f"insert_moe needs a timm VisionTransformer, got {type(vit).__name__}; "
            "list_backbones('vit_*') names some"
        )
    for block in vit.blocks:
        if type(block) is not Block:
            raise TypeError(
                f"insert_moe needs plain pre-norm blocks, got {type(block).__name__}; "
                "insert into a ViT that has no MoE and no parallel or post-norm blocks"
            )
    return vit


def _make_mlp(
    dense: Mlp,
    *,
    experts: int,
    top_k: int,
    hidden_dim: int | None,
    upcycle: bool,
    **options: Any,
) -> MoELayer:
    width, dim = dense.fc1.weight.shape
    hidden = max(width // max(top_k, 1), 1) if hidden_dim is None else hidden_dim
    layer = MoELayer(dim, hidden, experts, top_k, **options).to(dense.fc1.weight)
    if upcycle:
        upcycle_mlp(layer, dense, top_k)
    return layer


def _make_attention(
    dense: Attention, *, experts: int, top_k: int, heads: int, upcycle: bool, **options: Any
) -> MoEAttention:
    dim, head_dim = dense.qkv.weight.shape[1], dense.head_dim
    layer = MoEAttention(dim, head_dim, experts, top_k, heads=heads, **options)
    layer.to(dense.qkv.weight)
    if upcycle:
        upcycle_attention(layer, dense)
    return layer
