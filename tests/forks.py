"""Processes forked from one server that has imported all that a run may need: they start at once.

An interpreter that imports torch, timm and Lightning costs some six seconds; a fork of this one
costs none. It is as separate a process as any, so it can be killed. There is one server in each
process of the test run.
"""

import multiprocessing
import os
from multiprocessing import forkserver
from pathlib import Path
from typing import Any


def nursery() -> Any:
    """The context whose processes are forked from the server, which is started if need be."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.everything"])
    root = str(Path(__file__).resolve().parents[1])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = root  # the server of Python 3.11 gets no sys.path
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context
