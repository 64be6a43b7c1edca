"""Every task, hit by everything: `pytest tests/faults --faults 100` runs 100 seeded cases.

One of each kind belongs to the normal suite.
"""

import functools
import random
from pathlib import Path
from typing import Any

import pytest

from tests.faults import kinds, scenarios
from tests.faults.runs import Outcome, Run
from tests.forks import nursery

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def cases(count: int) -> list[tuple[str, str, int]]:
    """(kind, task, seed) of so many cases: every kind in turn, every task in turn."""
    found, turns = [], {name: n for n, name in enumerate(kinds.KINDS)}
    for number in range(count):
        name = list(kinds.KINDS)[number % len(kinds.KINDS)]
        tasks = kinds.KINDS[name][1]
        found.append((name, tasks[turns[name] % len(tasks)], number))
        turns[name] += 1
    return found


def pytest_generate_tests(metafunc: Any) -> None:
    if "case" in metafunc.fixturenames:
        first, _, end = metafunc.config.getoption("faults", "17").rpartition(":")
        chosen = cases(int(end))[int(first or 0) :]
        ids = [f"{seed:03}-{kind}-{task}" for kind, task, seed in chosen]
        metafunc.parametrize("case", chosen, ids=[i.replace(" ", "_") for i in ids])


@pytest.fixture(scope="module")
def place(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    scenarios.write_data(folder / "data")
    return folder


@pytest.fixture(scope="module")
def make(place: Path) -> Any:
    context = nursery()

    def run(task: str, folder: Path, data: Path, **changes: Any) -> Run:
        output = folder / "disk" / "run"
        return Run(context, folder, scenarios.config(task, data, output, **changes))

    return run


@pytest.fixture(scope="module")
def whole(place: Path, make: Any) -> Any:
    @functools.cache
    def outcome(task: str) -> Outcome:
        run = make(task, place / f"{task}-whole", place / "data")
        assert run.finish() == 0, run.said
        return Outcome(run.output)

    return outcome


def test_case(case: tuple[str, str, int], place: Path, make: Any, whole: Any, record_property: Any):
    name, task, seed = case
    folder = place / f"{task}-{seed}"
    own_data = name in ("data file removed", "shard damaged")
    changes = {
        "workers": int(name in ("loader process dies", "SIGTERM to the whole job")),
        "nonfinite_limit": 2 if name == "loss not finite" else None,
    }
    run = make(task, folder, folder / "data" if own_data else place / "data", **changes)
    result = kinds.KINDS[name][0](run, whole(task), random.Random(seed))
    record_property("fault", name)
    record_property("result", result)
