"""Is a trained network a prox? ``tools/evaluate.py certify CHECKPOINT`` prints the report."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from visionlab.tasks.trust import add_trust_code

# by number of spatial axes
_SIZES = {0: [""], 1: ["37", "64"], 2: ["37x53", "64x64"]}
_KIND = {
    0: "this network takes vectors of one length, leave --sizes out",
    1: "a size is the length of a signal, such as 37",
    2: "a size is HxW in pixels, such as 37x53",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of ``tools/evaluate.py certify``."""
    add_trust_code(parser)
    parser.add_argument("checkpoint", type=Path, help="checkpoint of a learned proximal network")
    parser.add_argument("--images", metavar="SOURCE",
                        help="pictures to probe at: a folder, an .npz archive, scikit-image or "
                             "scikit-learn (default: noise)")  # fmt: skip
    parser.add_argument("--sizes", nargs="+", default=[], metavar="HxW",
                        help="image sizes to probe (default: 37x53 64x64), or lengths of signals "
                             "(default: 37 64); vectors have one size")  # fmt: skip
    parser.add_argument("--levels", nargs="+", type=float, default=[],
                        help="noise levels of a conditioned network (default: ends of its "
                             "range)")  # fmt: skip
    parser.add_argument("--samples", type=int, default=2, help="points per size (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="of points and probes (default 0)")


def run(args: Namespace) -> int:
    """Print one report per size and noise level in float64; 1 if any check failed."""
    import torch

    from visionlab.proximal.certificate import certify
    from visionlab.proximal.network import ProximalMap, ProximalNetwork
    from visionlab.tasks.restoration import load_prox

    net = load_prox(args.checkpoint, trust_code=args.trust_code).double()
    maps: list[tuple[str, ProximalMap]] = [("", net)]
    if isinstance(net, ProximalNetwork) and net.conditioned and net.noise_range is not None:
        levels = args.levels or list(net.noise_range)
        maps = [(f", noise level {s:g}", net.at(s)) for s in levels]
    failed = 0
    for size in _sizes(args.sizes, net.backbone.dim):  # type: ignore[union-attr,arg-type]
        generator = torch.Generator().manual_seed(args.seed)
        points = _points(args, net, size, generator)
        for label, f in maps:
            certificate = certify(f, points, generator=generator)
            print(f"{tuple(points.shape)} in float64{label}\n{certificate}\n", flush=True)
            failed += not certificate.holds
    print("every check holds" if not failed else f"{failed} of the reports above FAIL")
    return int(failed > 0)


def _sizes(texts: list[str], dim: int) -> list[tuple[int, ...]]:
    """Spatial sizes to probe a network of ``dim`` spatial axes at."""
    return [_size(text, dim) for text in texts or _SIZES[dim]]


def _size(text: str, dim: int) -> tuple[int, ...]:
    parts = text.lower().split("x") if text else []
    if len(parts) != dim or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise ValueError(f"{_KIND[dim]}; got '{text}'")
    return tuple(int(p) for p in parts)


def _points(args: Namespace, net, size: tuple[int, ...], generator):  # type: ignore[no-untyped-def]
    """Points (samples, C, *size) in float64: crops of pictures, or noise around mid-gray."""
    import torch

    from visionlab.data.pictures import cut_crops, read_pictures
    from visionlab.tasks.restoration import channels_of

    if args.samples < 1:
        raise ValueError(f"--samples is at least 1, got {args.samples}")
    channels = channels_of(net)
    shape = (args.samples, channels, *size)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    if args.images is None:
        return 0.5 + 0.25 * noise
    if len(size) != 2:
        raise ValueError("--images are for networks of images; leave it out to probe at noise")
    height, width = size
    pictures = read_pictures(args.images, channels=channels)
    side = max(height, width)
    crops = cut_crops(pictures, side, per_picture=-(-args.samples // len(pictures)), seed=args.seed)
    level = net.noise_level or (net.noise_range or (0.1,))[-1]
    return crops[: args.samples, :, :height, :width].double() + level * noise
