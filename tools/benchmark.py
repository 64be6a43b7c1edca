"""Every figure that the README claims: measured, written as records, shown as tables and a page.

python tools/benchmark.py                          list the sections
python tools/benchmark.py masking --help           arguments of one
python tools/benchmark.py masking draws --figures figures      measure, keep the figures there
python tools/benchmark.py --quick                  all CPU figures in under 10 minutes on 2 cores
python tools/benchmark.py --gpu                    the GPU figures, where torch sees a CUDA device
python tools/benchmark.py --readme                 fill README.md and the results page from figures/
python tools/benchmark.py --page FOLDER --runs RUN ...         page with pictures of run folders

A section is a file ``benchmark_<section>.py`` beside this one: a command line of its own that may
``publish`` tables (visionlab.figures). What needs a training is not measured by --quick: it is
read from figures/*.json and marked so.
"""

import argparse
import runpy
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
ROOT = _HERE.parent

# A process each, so that no section's threads, caches or allocator settings reach another.
CPU_PLAN = (
    "start",
    "masking colors",
    "masking draws --repetitions 41",
    "autoencoder step --model vit_tiny_patch16_224 --batch-size 2 --repetitions 5",
    "autoencoder step --model vit_base_patch16_224 --batch-size 1 --repetitions 5",
    "autoencoder decoders --batch-size 2 --repetitions 5",
    "proximal speed --repeats 5",
    "proximal laplacian --seeds 1",
    "restoration",
    "moe --repeats 7",
    "votes --flows 1000 --timed 3 --repeats 5",
    "accuracy scenes --count 24",
    "accuracy recordings --stride 2",
    "video",
    "data reading",
    "data decoding",
    "scale",
)
GPU_PLAN = ("cuda", "moe --device cuda --preset h100")


def main(arguments: list[str] | None = None) -> int:
    """Hand the remaining arguments to the chosen section, or run one of the collecting modes."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    sections = {p.stem.removeprefix("benchmark_"): p for p in _HERE.glob("benchmark_*.py")}
    if arguments and arguments[0] in sections:
        run_section(sections[arguments[0]], arguments)
        return 0
    if arguments and not arguments[0].startswith("-"):
        from visionlab.registry import suggest

        print(f"no section '{arguments[0]}'. {suggest(arguments[0], sections)}", file=sys.stderr)
        return 2
    options = parser(sections).parse_args(arguments)
    if options.quick or options.gpu:
        from visionlab.figures import report

        if options.gpu:
            return report.run(options, Path(__file__), GPU_PLAN, device="gpu")
        return report.run(options, Path(__file__), CPU_PLAN)
    if options.readme:
        from visionlab.figures import documents

        for path in documents.refresh(ROOT):
            print(path)
        return 0
    if options.page is not None:
        from visionlab.figures import page, store

        tables = store.read_folder(options.figures or ROOT / "figures")
        print(page.write_page(options.page, tables, pictures=ROOT / "pictures", runs=options.runs))
        return 0
    parser(sections).print_help()
    return 2


def run_section(path: Path, arguments: list[str]) -> None:
    """Run a section as a program; with ``--figures FOLDER`` its tables are kept there."""
    rest = arguments[1:]
    if "--figures" in rest:
        at = rest.index("--figures")
        if at + 1 == len(rest):
            sys.exit("--figures needs a folder")
        folder = Path(rest[at + 1])
        del rest[at : at + 2]
        from visionlab.figures import collect_into

        # a path of this machine tells a reader nothing
        words = ["DIR" if Path(a).is_absolute() else a for a in rest]
        collect_into(folder, command=" ".join(["python tools/benchmark.py", arguments[0], *words]))
    sys.argv = [str(path), *rest]
    runpy.run_path(str(path), run_name="__main__")


def parser(sections: object = ()) -> argparse.ArgumentParser:
    """Options of the collecting modes."""
    p = argparse.ArgumentParser(
        prog="tools/benchmark.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"sections: {', '.join(sorted(sections))}",  # type: ignore[call-overload]
    )
    mode = p.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="measure every CPU figure")
    mode.add_argument("--gpu", action="store_true", help="measure every GPU figure")
    mode.add_argument("--readme", action="store_true", help="fill the documents from figures/")
    mode.add_argument("--page", type=Path, metavar="FOLDER", help="write the results page there")
    p.add_argument(
        "--output", type=Path, default=Path("outputs/benchmark"), metavar="FOLDER",
        help="of --quick and --gpu: table.md, table.json, index.html, figures/ (%(default)s)",
    )  # fmt: skip
    p.add_argument("--figures", type=Path, metavar="FOLDER", help="figures other than figures/")
    p.add_argument("--mae-repo", type=Path, help="checkout of facebookresearch/mae, a peer")
    p.add_argument("--only", default="*", metavar="PATTERN", help="sections, e.g. 'masking*'")
    p.add_argument("--runs", type=Path, nargs="*", default=[], help="run folders for the page")
    return p


if __name__ == "__main__":
    sys.exit(main())
