"""FLOPs and parameters by formula equal what torch counts."""

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.moe.small_model import Model, images, make
from visionlab.moe import (
    adaptation_patterns,
    backbone_flops,
    cost,
    cost_table,
    freeze_except,
    set_top_k,
)


def counted_flops(model: Model, task: str) -> int:
    """torch's counter, over kernels that it sees: backend ``loop`` and unfused attention."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.backbone(images(1), task=task)
    return counter.get_total_flops()


def test_less_computation_and_its_flops() -> None:
    model = make(attention=False)
    full = backbone_flops(model, "cls", (32, 32))
    assert full == counted_flops(model, "cls")
    set_top_k(model, "cls", 1)
    assert full - backbone_flops(model, "cls", (32, 32)) == 2 * 2 * 17 * 2 * 48 * 96
    assert backbone_flops(model, "seg", (32, 32)) == full
    assert model.backbone.blocks[1].mlp.top_k == {"cls": 1, "det": 2, "seg": 2}


def test_attention_flops_equal_the_counted_ones() -> None:
    model = make()
    assert backbone_flops(model, "cls", (32, 32)) == counted_flops(model, "cls")


def test_cost_table() -> None:
    model = make()
    costs = {}
    for way, patterns in adaptation_patterns(model, "det").items():
        freeze_except(model, patterns)
        costs[way] = cost(model, "det", (32, 32))
    assert costs["head"].trained < costs["routers and head"].trained < costs["all"].trained
    assert costs["all"].trained == costs["all"].total
    rows = cost_table(costs).splitlines()
    assert len(rows) == 2 + 3
    assert rows[-1].startswith("| all | ")
    assert "100.0 %" in rows[-1]
