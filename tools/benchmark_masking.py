"""Masking figures: cost of drawing masks and of a training step, beside other implementations.

    python tools/benchmark.py masking draws
    python tools/benchmark.py masking step --model vit_base_patch16_224 --batch-size 2
    python tools/benchmark.py masking step --mae-repo DIR
    python tools/benchmark.py masking decoders

All arms of a table run in turn in the same process, with the same optimiser; ratios are of
medians. Peers are optional: lightly if it can be imported, facebookresearch/mae if --mae-repo
names a checkout of it.
"""

import argparse
import platform
import sys
import time
import types
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from visionlab.masking import MaskedAutoencoder, create_mask

Step = Callable[[], object]


def main() -> None:
    """Parse, run one table, print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=("draws", "step", "decoders"))
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mae-repo", type=Path, help="checkout of facebookresearch/mae")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{platform.machine()}, torch {torch.__version__}, timm {timm.__version__}, "
          f"{args.threads} thread(s), CPU time, median (min) of {args.repetitions}")  # fmt: skip
    if args.table == "draws":
        report(time_in_turn(drawing_arms(), args.repetitions), base="rand + two argsorts (MAE)")
    elif args.table == "step":
        arms = step_arms(args.model, args.batch_size, args.mae_repo)
        report(time_in_turn(arms, args.repetitions), base="visionlab")
    else:
        report(
            time_in_turn(decoder_arms(args.model, args.batch_size), args.repetitions),
            base="standard",
        )


def time_in_turn(arms: Mapping[str, Step], repetitions: int) -> dict[str, list[float]]:
    """CPU seconds of each repetition of each arm, in turn, so that load hits all alike."""
    for step in arms.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(repetitions):
        for name, step in arms.items():
            start = time.process_time()  # other programs disturb it less than the wall clock
            step()
            seconds[name].append(time.process_time() - start)
    return seconds


def report(seconds: Mapping[str, list[float]], *, base: str) -> None:
    """Print medians, minima, and the ratio of medians to the base arm."""
    reference = float(np.median(seconds[base]))
    for name, times in seconds.items():
        median = float(np.median(times))
        print(
            f"{name:44s} {1e3 * median:9.2f} ({1e3 * min(times):8.2f}) ms  "
            f"{median / reference:5.2f}x"
        )


def drawing_arms() -> dict[str, Step]:
    """256 masks of 14 x 14 at ratio .75 with ids_keep, ids_restore and mask."""
    bank = torch.randn(3072, 64, 64)

    def shuffled(scores: Tensor) -> None:
        order = torch.argsort(scores, dim=1)
        restore = torch.argsort(order, dim=1)
        mask = torch.ones(256, 196)
        mask[:, :49] = 0
        torch.gather(mask, 1, restore)

    def official_bank() -> None:
        # the published generator crops, flips and scales the whole bank, then uses the first 256
        row, column = (int(torch.randint(51, ())) for _ in range(2))
        window = bank[:, row : row + 14, column : column + 14].flip(-1)
        window = window / window.amax((1, 2), keepdim=True)
        shuffled(-window[:256].flatten(1))

    arms: dict[str, Step] = {
        "rand + two argsorts (MAE)": lambda: shuffled(torch.rand(256, 196)),
        "noise bank, crop + two argsorts (ColorMAE)": official_bank,
    }
    for name in ("random", "green", "red", "blue", "purple", "block", "grid", "multiblock"):
        arms[name] = _draw(name)
    arms["green, by sample index"] = _draw("green", by_index=True)
    return arms


def _draw(name: str, *, by_index: bool = False) -> Step:
    mask, index = create_mask(name, grid=(14, 14)), torch.arange(256) if by_index else None
    step = iter(range(10**9))

    def draw() -> None:
        masks = mask(256, key=(0, 0, next(step)), index=index)
        _ = masks.ids_keep, masks.ids_restore, masks.mask

    return draw


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


if __name__ == "__main__":
    main()
