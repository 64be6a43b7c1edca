"""The masked autoencoder: the published loss, keyed masks, whole-image encoding, training."""

import copy
import io
import logging

import pytest
import timm
import torch

from visionlab.masking import MaskBatch, MaskedAutoencoder, create_mask
from visionlab.masking.decoders import LightDecoder
from visionlab.masking.targets import patchify

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2}
DECODER = LightDecoder(depth=1, dim=32, heads=4)


def make(mask="green", *, img_size=(48, 64), name="vit_tiny_patch16_224", vit=None, **options):
    torch.manual_seed(0)
    backbone = timm.create_model(
        name, img_size=img_size, num_classes=0, global_pool="", **TINY, **(vit or {})
    )
    return MaskedAutoencoder(backbone, mask, **{"decoder": DECODER, **options})


IMAGES = torch.randn(4, 3, 48, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize("vit", [{}, {"reg_tokens": 3}, {"class_token": False}])
def test_loss_is_the_published_one(norm_pix, vit):
    """MAE's formulation: embed all, shuffle, encode, un-shuffle, decode, compare all."""
    model = make(norm_pix=norm_pix, vit=vit).eval()
    out = model(IMAGES, key=(0, 0, 0))
    masks, enc, dec = out.masks, model.backbone, model.decoder
    x = enc.patch_embed(IMAGES)
    full = enc._pos_embed(x)
    prefix = enc.num_prefix_tokens
    visible = full[:, prefix:].gather(1, masks.ids_keep[:, :, None].expand(-1, -1, 32))
    latent = enc.norm(enc.blocks(torch.cat([full[:, :prefix], visible], 1)))
    x = dec.embed(latent)
    tokens = torch.cat([x[:, prefix:], dec.mask_token.expand(4, 9, -1)], 1)
    tokens = tokens.gather(1, masks.ids_restore[:, :, None].expand(-1, -1, 32)) + dec.positions
    x = torch.cat([x[:, :prefix], tokens], 1)
    for block in dec.blocks:
        x = block(x)
    prediction = dec.head(dec.norm(x))[:, prefix:]
    target = patchify(IMAGES, (16, 16))
    if norm_pix:
        target = (target - target.mean(-1, keepdim=True)) / (
            target.var(-1, keepdim=True) + 1e-6
        ) ** 0.5
    per_patch = ((prediction - target) ** 2).mean(-1)
    expected = (per_patch * masks.mask).sum() / masks.mask.sum()
    torch.testing.assert_close(out.loss, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        out.prediction, prediction * masks.mask[:, :, None], atol=1e-4, rtol=1e-4
    )
    assert out.mask.dtype == torch.bool
    assert out.mask.shape == (4, 12)


@pytest.mark.parametrize("decoder", ["standard", "light", "cross_attention"])
def test_every_trained_parameter_gets_a_gradient(decoder):
    model = make(decoder=decoder, vit={"reg_tokens": 2})
    model(IMAGES, key=0).loss.backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_same_key_same_masks_and_no_global_randomness():
    model = make()
    state = torch.get_rng_state()
    a, b, c = (model(IMAGES, key=k) for k in [(0, 0, 5), (0, 0, 5), (0, 0, 6)])
    assert torch.equal(a.mask, b.mask)
    assert a.loss == b.loss
    assert not torch.equal(a.mask, c.mask)
    assert torch.equal(state, torch.get_rng_state())


def test_without_a_key_every_call_draws_anew_and_repeatably():
    first, second = make(seed=3), make(seed=3)
    masks = [first(IMAGES).mask for _ in range(3)]
    assert not torch.equal(masks[0], masks[1])
    assert all(torch.equal(m, second(IMAGES).mask) for m in masks)
    assert not torch.equal(masks[0], make(seed=4)(IMAGES).mask)


def test_by_index_masks_follow_the_sample():
    model = make()
    whole = model(IMAGES, key=(0, 1), index=[7, 3, 9, 2]).mask
    part = model(IMAGES[2:], key=(0, 1), index=torch.tensor([9, 2])).mask
    assert torch.equal(whole[2:], part)


def test_several_masks_per_image():
    model = make(repeats=3)
    out = model(IMAGES, key=(0,))
    assert out.mask.shape == (12, 12)
    assert not torch.equal(out.mask[0], out.mask[1])
    single = make()
    losses = [
        single(IMAGES[i // 3][None], mask=MaskBatch(out.mask[i][None], 3, (3, 4))).loss
        for i in range(12)
    ]
    torch.testing.assert_close(out.loss, torch.stack(losses).mean())
    indexed = model(IMAGES, key=(0, 1), index=[4, 5, 6, 7]).mask
    assert torch.equal(indexed[6:], model(IMAGES[2:], key=(0, 1), index=[6, 7]).mask)
    assert not torch.equal(indexed[0], indexed[1])


def test_a_share_of_the_targets():
    model = make(targets_fraction=0.5, decoder="cross_attention")
    out = model(IMAGES, key=(0,))
    assert out.ids_target.shape == (4, 4)  # of 9 hidden
    assert out.mask.gather(1, out.ids_target).all()
    assert not torch.equal(out.ids_target, model(IMAGES, key=(1,)).ids_target)
    again = model(IMAGES, key=(0, 1), index=[0, 1, 2, 3])
    part = model(IMAGES[1:], key=(0, 1), index=[1, 2, 3])
    assert torch.equal(again.ids_target[1:], part.ids_target)
    assert (out.prediction != 0).any(-1).sum() == 16


@pytest.mark.parametrize("training", [True, False])
def test_encode_never_masks(training):
    model = make().train(training)
    tokens = model.encode(IMAGES)
    assert tokens.shape == (4, 13, 32)
    torch.testing.assert_close(tokens, model.backbone.forward_features(IMAGES))


def test_variable_sizes():
    model = make(vit={"dynamic_img_size": True})
    for size in [(48, 64), (32, 96), (80, 16)]:
        out = model(torch.randn(2, 3, *size), key=(0,))
        assert out.mask.shape == (2, size[0] * size[1] // 256)
        picture = model.reconstruct(torch.randn(2, 3, *size)).prediction
        assert picture.shape == (2, 3, *size)
    with pytest.raises(ValueError, match="takes images of 48x64, got 32x96"):
        make()(torch.randn(2, 3, 32, 96))


def test_one_channel_and_oblong_patches():
    model = make(img_size=(32, 48), vit={"in_chans": 1, "patch_size": (8, 16)})
    out = model(torch.randn(2, 1, 32, 48), key=(0,))
    assert out.prediction.shape == (2, 12, 128)


def test_rotary_positions():
    model = make(name="vit_small_patch16_rope_224")
    model(IMAGES, key=(0,)).loss.backward()
    assert model.backbone.blocks[0].attn.proj.weight.grad.any()


def test_scheduled_and_score_masks():
    stages = [{"epoch": 0, "name": "red"}, {"epoch": 2, "name": "green"}]
    model = make(create_mask("schedule", stages=stages, ratio_end=0.5, epochs=4))
    assert model(IMAGES, key=(0,), epoch=0).mask.sum(1).tolist() == [9] * 4
    assert model(IMAGES, key=(0,), epoch=4).mask.sum(1).tolist() == [6] * 4
    with pytest.raises(ValueError, match="pass epoch"):
        model(IMAGES, key=(0,))

    def darkness(images):
        return -patchify(images, (16, 16)).mean(-1)

    model = make(create_mask("score", score_fn=darkness, weight=1.0))
    hidden = model(IMAGES, key=(0,)).mask
    assert torch.equal(hidden, ~torch.zeros(4, 12).bool().scatter(
        1, darkness(IMAGES).topk(3).indices, True))  # fmt: skip


def test_loss_falls_on_a_fixed_batch():
    model = make(img_size=(32, 32), norm_pix=False)
    ramp = torch.linspace(-1, 1, 32)
    images = torch.stack([ramp.expand(3, 32, 32), ramp.flip(0)[:, None].expand(3, 32, 32)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for step in range(60):
        loss = model(images, key=(0, 0, step % 4)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-4:]) < 0.2 * sum(losses[:4])


def test_bfloat16_autocast_keeps_the_loss_in_float32():
    model = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(IMAGES, key=(0,))
    full = model(IMAGES, key=(0,))
    assert low.loss.dtype == torch.float32
    assert torch.equal(low.mask, full.mask)
    assert low.loss.item() == pytest.approx(full.loss.item(), rel=0.02)
    assert low.loss != full.loss


@pytest.mark.slow
def test_compiled_step_equals_the_eager_one():
    model = make()
    expected = model(IMAGES, key=(0,)).loss
    model.compile(backend="aot_eager")
    assert torch.allclose(model(IMAGES, key=(0,)).loss, expected)
    copy.deepcopy(model)(IMAGES, key=(0,))


def test_state_loads_strictly_and_reproduces():
    model, other = make(), make(seed=1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(other(IMAGES, key=(2,)).loss, model(IMAGES, key=(2,)).loss)
    assert {"backbone.pos_embed", "decoder.positions", "decoder.mask_token"} <= set(
        model.state_dict()
    )


def test_fresh_backbones_are_initialised_and_trained_ones_kept(caplog):
    trained = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, **TINY)
    with torch.no_grad():
        trained.norm.weight.mul_(1.1)
    before = {k: v.clone() for k, v in trained.state_dict().items()}
    with caplog.at_level(logging.INFO, logger="visionlab.masking.autoencoder"):
        model = MaskedAutoencoder(copy.deepcopy(trained), decoder=DECODER)
    assert "its weights are kept" in caplog.text
    assert all(torch.equal(v, before[k]) for k, v in model.backbone.state_dict().items())
    assert model.backbone.pos_embed.requires_grad
    forced = MaskedAutoencoder(copy.deepcopy(trained), decoder=DECODER, init="mae")
    assert not torch.equal(forced.backbone.norm.weight, before["norm.weight"])
    assert not forced.backbone.pos_embed.requires_grad
    kept = MaskedAutoencoder(
        timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, **TINY),
        decoder=DECODER,
        init="keep",
    )
    assert kept.backbone.pos_embed.requires_grad


def test_a_classifier_is_dropped_with_a_word(caplog):
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=7, **TINY)
    with caplog.at_level(logging.INFO, logger="visionlab.masking.autoencoder"):
        model = MaskedAutoencoder(vit, decoder=DECODER)
    assert "dropped the classification head" in caplog.text
    model(torch.randn(2, 3, 32, 32), key=0).loss.backward()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_description_is_plain():
    record = make(create_mask("red", sigma=2.0), repeats=2).describe()
    assert record["mask"]["spectrum"] == {"kind": "red", "sigma": 2.0}
    assert record["decoder"] == {"kind": "LightDecoder", "depth": 1, "dim": 32, "heads": 4}
    assert record["repeats"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": create_mask("green", (14, 14))}, r"grid of 14x14 .* the backbone 3x4; use"),
        ({"mask": 3}, r"mask is a strategy such as create_mask\('green'\)"),
        ({"mask": "gren"}, "no mask 'gren'. Did you mean 'green'"),
        ({"decoder": "ligth"}, "no decoder 'ligth'. Did you mean 'light'"),
        ({"repeats": 0}, "repeats is the number of masks per image"),
        ({"repeats": True}, "repeats is the number of masks per image"),
        ({"targets_fraction": 0}, r"targets_fraction lies in \(0, 1\]"),
        ({"init": "random"}, "init is 'auto', 'mae' or 'keep', got 'random'"),
        ({"vit": {"patch_drop_rate": 0.5}}, "drops patches itself"),
    ],
)
def test_refusals_are_sentences(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make(**options)


def test_masks_of_another_batch():
    masks = create_mask("random", (3, 4))(2, key=0)
    with pytest.raises(ValueError, match=r"masks of shape \(4, 12\) for 4 images of a 3x4 grid"):
        make()(IMAGES, mask=masks)
