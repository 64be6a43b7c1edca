#!/usr/bin/env python3
"""Set up and run: the two commands of the README, with nothing but Python and pip.

    python3 tools/dev.py train [CONFIG] [key=value ...]   train configs/quickstart.yaml, or CONFIG
    python3 tools/dev.py test [pytest arguments ...]      format, lint, types, tests

Both make a virtual environment in .venv on first use and install into it; an active one (or
--here: the interpreter that runs this file) is used as it is. Every command is printed.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (an older Python shall say so itself)
    sys.exit("visionlab needs Python 3.11 or newer; this is " + sys.version.split()[0])

import hashlib
import os
import shlex
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"


def main(arguments: list[str]) -> int:
    """Entry point; returns the exit status."""
    here = "--here" in arguments
    arguments = [a for a in arguments if a != "--here"]
    if not arguments or arguments[0] not in ("train", "test"):
        print(__doc__)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    command, rest = arguments[0], arguments[1:]
    python = find_python(here)
    install(python, extras="dev" if command == "test" else "")
    return train(python, rest) if command == "train" else test(python, rest)


def train(python: Path, rest: list[str]) -> int:
    """Run a config; the quickstart if none is named."""
    named = bool(rest) and "=" not in rest[0] and not rest[0].startswith("-")
    config = [] if named else ["configs/quickstart.yaml"]
    return run([python, "tools/train.py", *config, *rest])


def test(python: Path, rest: list[str]) -> int:
    """Format, lint and types, then all tests; given arguments, pytest alone with these."""
    if rest:
        return run([python, "-m", "pytest", *rest])
    for check in (["ruff", "format", "--check"], ["ruff", "check"], ["mypy"]):
        if status := run([python, "-m", *check]):
            return status
    # one process more than cores, since some tests wait for processes of their own; a file stays in
    # one process, which makes its fixtures once; tests/conftest.py orders the files
    processes = min((os.cpu_count() or 1) + 1, 8)
    spread = ["-n", processes, "--dist", "loadfile", "--no-loadscope-reorder"]
    return run([python, "-m", "pytest", "-q", *spread])


def find_python(here: bool) -> Path:
    """The interpreter to use: this one, an active environment's, or that of .venv (made once)."""
    if here or sys.prefix != sys.base_prefix:
        return Path(sys.executable)
    if active := os.environ.get("VIRTUAL_ENV"):
        return Path(active) / scripts() / "python"
    python = VENV / scripts() / ("python.exe" if os.name == "nt" else "python")
    if not python.exists():
        make_environment()
    return python


def make_environment() -> None:
    """Create .venv without pip (Debian lacks ensurepip); the pip at hand installs into it."""
    if status := run([sys.executable, "-m", "venv", "--without-pip", VENV]):
        sys.exit(status)


def scripts() -> str:
    """Folder of an environment that holds its programs."""
    return "Scripts" if os.name == "nt" else "bin"


def install(python: Path, extras: str) -> None:
    """Install the project with its dependencies, unless that is done."""
    stamp = Path(environment_of(python)) / f"visionlab-{extras or 'run'}.stamp"
    wanted = fingerprint(python)
    done = [stamp] if extras else [stamp, stamp.with_name("visionlab-dev.stamp")]
    if any(s.exists() and s.read_text() == wanted for s in done):
        return
    target = f"{ROOT}[{extras}]" if extras else str(ROOT)
    pip = [sys.executable, "-m", "pip", "--python", python]
    if status := run([*pip, "install", "-e", target]):
        sys.exit(status)
    stamp.write_text(wanted)


def environment_of(python: Path) -> str:
    """Root folder of the environment behind an interpreter."""
    if python == Path(sys.executable):
        return sysconfig.get_path("data")
    return str(python.parents[1])


def fingerprint(python: Path) -> str:
    """Changes when the dependency list or the interpreter does."""
    text = (ROOT / "pyproject.toml").read_bytes() + str(python).encode() + sys.version.encode()
    return hashlib.sha256(text).hexdigest()


def run(command: list) -> int:
    """Print a command, run it in the project's root, return its exit status."""
    words = [str(c) for c in command]
    print("$ " + shlex.join(words), flush=True)
    return subprocess.run(words, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
