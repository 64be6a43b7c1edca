"""``--faults N`` and the table of what came of the cases."""

from collections import Counter
from typing import Any

import pytest

from tests.faults import kinds


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--faults", default="17", help="cases of the fault suite: N, or FROM:TO")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [r for o in ("passed", "failed") for r in terminalreporter.getreports(o)]
    rows: dict[str, Counter[str]] = {}
    for report in reports:
        properties = dict(report.user_properties)
        if "test_faults.py" in report.nodeid and report.when == "call":
            name = report.nodeid.split("-")[1].replace("_", " ")
            result = properties.get("result", "FAILED") if report.passed else "FAILED"
            rows.setdefault(name, Counter())[result] += 1
    if not rows:
        return
    from visionlab.tasks.tables import format_table

    results = sorted({r for counts in rows.values() for r in counts})
    table = [{"fault": n, "cases": sum(c.values()), **{r: c[r] for r in results}}
             for n, c in rows.items()]  # fmt: skip
    table.append({"fault": "all", "cases": sum(r["cases"] for r in table),
                  **{r: sum(row[r] for row in table) for r in results}})  # fmt: skip
    terminalreporter.write_line("")
    terminalreporter.write_line(format_table(table, "Faults"))
    if kinds.stop_seconds:
        worst = max(kinds.stop_seconds)
        terminalreporter.write_line(f"from signal to end: at most {worst:.2f} s")
