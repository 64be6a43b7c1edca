"""Is a trained network a prox? ``tools/evaluate.py certify CHECKPOINT`` prints the report."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from visionlab.tasks.trust import add_trust_code


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of ``tools/evaluate.py certify``."""
    add_trust_code(parser)
    parser.add_argument("checkpoint", type=Path, help="checkpoint of a learned proximal network")
    parser.add_argument("--images", metavar="SOURCE",
                        help="pictures to probe at: a folder, an .npz archive, scikit-image or "
                             "scikit-learn (default: noise)")  # fmt: skip
    parser.add_argument("--sizes", nargs="+", default=["37x53", "64x64"], metavar="HxW",
                        help="image sizes to probe (default: 37x53 64x64)")  # fmt: skip
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
    for height, width in map(_size, args.sizes):
        generator = torch.Generator().manual_seed(args.seed)
        points = _points(args, net, height, width, generator)
        for label, f in maps:
            certificate = certify(f, points, generator=generator)
            print(f"{tuple(points.shape)} in float64{label}\n{certificate}\n", flush=True)
            failed += not certificate.holds
    print("every check holds" if not failed else f"{failed} of the reports above FAIL")
    return int(failed > 0)


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise ValueError(f"a size is HxW in pixels, such as 37x53; got '{text}'")
    return int(parts[0]), int(parts[1])


def _points(args: Namespace, net, height: int, width: int, generator):  # type: ignore[no-untyped-def]
    """Points (samples, C, H, W) in float64: crops of pictures, or noise around mid-gray."""
    import torch

    from visionlab.data.pictures import cut_crops, read_pictures
    from visionlab.tasks.restoration import channels_of

    channels = channels_of(net)
    shape = (args.samples, channels, height, width)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    if args.images is None:
        return 0.5 + 0.25 * noise
    pictures = read_pictures(args.images, channels=channels)
    size = max(height, width)
    crops = cut_crops(pictures, size, per_picture=-(-args.samples // len(pictures)), seed=args.seed)
    level = net.noise_level or (net.noise_range or (0.1,))[-1]
    return crops[: args.samples, :, :height, :width].double() + level * noise
