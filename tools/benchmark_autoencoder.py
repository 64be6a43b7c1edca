"""Cost of a training step of the masked autoencoder, beside other implementations and decoders.

    python tools/benchmark.py autoencoder step --model vit_base_patch16_224 --batch-size 2
    python tools/benchmark.py autoencoder step --mae-repo DIR
    python tools/benchmark.py autoencoder decoders

All arms of a table run in turn in the same process, with the same optimiser; times are CPU time,
ratios of medians. Peers are optional: lightly if it can be imported, facebookresearch/mae if
--mae-repo names a checkout of it.
"""

import argparse
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from visionlab.figures import (
    Column,
    Figure,
    FigureTable,
    at_least,
    at_most,
    in_turn,
    measured,
    publish,
)
from visionlab.figures.timing import MILLISECONDS, UNITS, show, timings
from visionlab.masking import MaskedAutoencoder, create_mask

Step = Callable[[], object]


def main() -> None:
    """Parse, run one table, print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=("step", "decoders"))
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mae-repo", type=Path, help="checkout of facebookresearch/mae")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.table == "step":
        arms, base = step_arms(args.model, args.batch_size, args.mae_repo), "visionlab"
    else:
        arms, base = decoder_arms(args.model, args.batch_size), "standard"
    figures = timings(in_turn(arms, args.repetitions), base=base)
    show(figures)
    made = step_table if args.table == "step" else decoders_table
    publish(made(figures, args.model, args.batch_size))


def training_step(model: nn.Module, loss: Callable[[], Tensor]) -> Step:
    """One AdamW step, the same settings for every arm."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def step_arms(name: str, batch_size: int, mae_repo: Path | None) -> dict[str, Step]:
    """Training steps of the published architecture, decoder 8 x 512, norm-pix, 224 px, fp32."""
    images = torch.randn(batch_size, 3, 224, 224)
    vit = timm.create_model(name, num_classes=0, global_pool="")
    ours = MaskedAutoencoder(vit, create_mask("green", grid=(14, 14)))
    arms = {"visionlab": training_step(ours, lambda: ours(images).loss)}
    if mae_repo is None:
        print("facebookresearch/mae left out: no --mae-repo given")
    else:
        official = official_mae(mae_repo, vit)
        arms["facebookresearch/mae"] = training_step(official, lambda: official(images)[0])
    try:
        arms["lightly"] = lightly_step(name, images)
    except ImportError as error:
        print(f"lightly left out: {error}")
    return arms


def decoder_arms(name: str, batch_size: int) -> dict[str, Step]:
    """The same encoder with each decoder."""
    images = torch.randn(batch_size, 3, 224, 224)

    def arm(decoder: str, **options: Any) -> Step:
        vit = timm.create_model(name, num_classes=0, global_pool="")
        model = MaskedAutoencoder(vit, "green", decoder=decoder, **options)
        return training_step(model, lambda: model(images).loss)

    return {
        "standard": arm("standard"),
        "light": arm("light"),
        "cross_attention": arm("cross_attention"),
        "cross_attention, 1/3 of targets": arm("cross_attention", targets_fraction=1 / 3),
    }


def official_mae(repo: Path, vit: Any) -> nn.Module:
    """The reference model of the size of ``vit``, with the two shims that today's packages need."""
    import timm.models.vision_transformer as timm_vit

    vars(np).setdefault("float", float)  # removed from NumPy 1.24
    block = timm_vit.Block
    timm_vit.Block = lambda *a, qk_scale=None, **k: block(*a, **k)  # type: ignore[misc, assignment]
    sys.path.insert(0, str(repo))
    # its `util` package pulls in what newer packages lack; only pos_embed is needed
    sys.modules["util"] = types.ModuleType("util")
    sys.modules["util"].__path__ = [str(repo / "util")]  # type: ignore[attr-defined]
    import models_mae

    timm_vit.Block = block  # type: ignore[misc]
    return models_mae.MaskedAutoencoderViT(
        embed_dim=vit.embed_dim,
        patch_size=16,
        depth=len(vit.blocks),
        num_heads=vit.blocks[0].attn.num_heads,
        decoder_embed_dim=512,
        decoder_depth=8,
        decoder_num_heads=16,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        norm_pix_loss=True,
    )


def lightly_step(name: str, images: Tensor) -> Step:
    """The MAE example of lightly's documentation, with norm-pix targets."""
    from lightly.models import utils
    from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM

    vit = timm.create_model(name, num_classes=0, global_pool="")
    backbone = MaskedVisionTransformerTIMM(vit=vit)
    warnings.filterwarnings("ignore", message=".*MAEDecoderTIMM.*")
    decoder = MAEDecoderTIMM(
        num_patches=196,
        patch_size=16,
        embed_dim=vit.embed_dim,
        decoder_embed_dim=512,
        decoder_depth=8,
        decoder_num_heads=16,
    )

    def loss() -> Tensor:
        shape = (len(images), backbone.sequence_length)
        keep, hidden = utils.random_token_mask(size=shape, mask_ratio=0.75, device=images.device)
        encoded = decoder.embed(backbone.encode(images=images, idx_keep=keep))
        tokens = utils.repeat_token(decoder.mask_token, shape)
        tokens = utils.set_at_index(tokens, keep, encoded.type_as(tokens))
        decoded = decoder.decode(tokens)
        predicted = decoder.predict(utils.get_at_index(decoded, hidden))
        target = utils.get_at_index(utils.patchify(images, 16), hidden - 1)
        target = utils.normalize_mean_var(target, dim=-1)
        return nn.functional.mse_loss(predicted, target)

    return training_step(nn.ModuleList([backbone, decoder]), loss)


def step_table(figures: list[Figure], model: str, batch_size: int) -> FigureTable:
    """A training step, beside the peers at hand; the ratio is ours to theirs."""
    ours = float(figures[0].values["ms"])
    turned = [
        replace(
            f,
            values={**f.values, "ratio": ours / float(f.values["ms"])},
            claims=[at_most("ratio", 1.03)] if f is not figures[0] else (),
        )
        for f in figures
    ]
    short = {"vit_tiny_patch16_224": "tiny", "vit_base_patch16_224": "base"}.get(model, model)
    return measured(
        f"masking.step_{short}",
        f"Training step of {model}, batch {batch_size}, decoder 8x512, norm-pix, AdamW, float32",
        head=f"{model}, batch {batch_size}",
        columns=[MILLISECONDS, Column("ours / this", "{ratio:.2f}x")],
        figures=turned,
        chart="ms",
        units=UNITS,
    )


def decoders_table(figures: list[Figure], model: str, batch_size: int) -> FigureTable:
    """The same encoder with each decoder."""
    standard = float(figures[0].values["ms"])
    faster = [
        replace(
            f,
            values={**f.values, "faster": standard / float(f.values["ms"])},
            claims=[at_least("faster", 4.0)] if f.what == "light" else (),
        )
        for f in figures
    ]
    return measured(
        "masking.decoders",
        f"Decoders: training step of {model}, batch {batch_size}",
        head="decoder",
        columns=[MILLISECONDS, Column("faster than standard", "{faster:.1f}x")],
        figures=faster,
        chart="ms",
        units={**UNITS, "faster": "of medians"},
    )


if __name__ == "__main__":
    main()
