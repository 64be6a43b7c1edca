"""Inserting MoE layers into timm ViTs: where they go, and what is refused."""

import pytest
import torch
from torch import nn

from tests.moe.small_vit import dense, images, moe
from visionlab.moe import insert_moe
from visionlab.moe.insertion import chosen_layers


def test_layout_rebuilds_the_model() -> None:
    model = moe(layers=[0, -1], attention=True)
    again = insert_moe(dense(), num_experts=6, top_k=2, layout=model.layout).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(model(images(), task="seg"), again(images(), task="seg"))


def test_placements() -> None:
    assert chosen_layers("every_second", 6) == [1, 3, 5]
    assert chosen_layers("last_two", 6) == [4, 5]
    assert chosen_layers("last_half", 6) == [3, 4, 5]
    assert chosen_layers("all", 3) == [0, 1, 2]
    assert chosen_layers([-1, 0], 6) == [0, 5]


def test_bad_input_gets_one_clear_sentence() -> None:
    with pytest.raises(TypeError, match="insert_moe needs a timm VisionTransformer, got Linear"):
        insert_moe(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="plain pre-norm blocks, got MoEBlock"):
        insert_moe(moe().vit, layers="all")
    with pytest.raises(
        ValueError, match=r"no placement 'every_secnd'. Did you mean 'every_second'"
    ):
        insert_moe(dense(), layers="every_secnd")
    with pytest.raises(ValueError, match=r"layers=\[4\] for a transformer of 4 blocks"):
        insert_moe(dense(), layers=[4])
    with pytest.raises(ValueError, match="top_k=0 with num_experts=4"):
        insert_moe(dense(), num_experts=4, top_k=0)
    with pytest.raises(ValueError, match="hidden_dim must be at least 1, got 0"):
        insert_moe(dense(), num_experts=4, top_k=2, hidden_dim=0)
    with pytest.raises(ValueError, match=r"names the layer 'blocks.7.mlp', the transformer has 4"):
        insert_moe(dense(), layout={"blocks.7.mlp": {"experts": [2], "routers": {}}})
    with pytest.raises(ValueError, match=r"needs .experts. and .routers., got \{\}"):
        insert_moe(dense(), layout={"blocks.0.mlp": {}})
    with pytest.raises(ValueError, match="cannot upcycle an MLP of width 192"):
        insert_moe(dense(), num_experts=5, top_k=2, hidden_dim=96, upcycle=True)
    with pytest.raises(ValueError, match="upcycling needs gates that sum to one"):
        insert_moe(dense(), num_experts=4, top_k=1, upcycle=True)
    with pytest.raises(ValueError, match="cannot upcycle a block with GELU"):
        insert_moe(dense(act_layer="gelu_tanh"), num_experts=4, top_k=2, upcycle=True)
    with pytest.raises(ValueError, match=r"no task 'clss' in this model. Did you mean 'cls'"):
        moe()(images(), task="clss")
    with pytest.raises(ValueError, match=r"token_mask must be \(images, patches\) = \(2, 16\)"):
        moe()(images(), task="cls", token_mask=torch.ones(2, 3, dtype=torch.bool))
