"""Run a benchmark section: each lives in its own file ``benchmark_<section>.py`` beside this one.

python tools/benchmark.py                 list the sections
python tools/benchmark.py masking --help  arguments of one
"""

import runpy
import sys
from pathlib import Path

_HERE = Path(__file__).parent


def main() -> None:
    """Hand the remaining arguments to the chosen section."""
    sections = {p.stem.removeprefix("benchmark_"): p for p in _HERE.glob("benchmark_*.py")}
    if len(sys.argv) < 2 or sys.argv[1] not in sections:
        sys.exit(
            f"usage: python tools/benchmark.py SECTION ...; sections: {', '.join(sorted(sections))}"
        )
    path = sections[sys.argv.pop(1)]
    sys.argv[0] = str(path)
    runpy.run_path(str(path), run_name="__main__")


if __name__ == "__main__":
    main()
