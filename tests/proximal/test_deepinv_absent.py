import importlib
import sys

import pytest


def test_without_deepinv_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepinv", None)
    monkeypatch.delitem(sys.modules, "visionlab.proximal.deepinv", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'visionlab\[deepinv\]'"):
        importlib.import_module("visionlab.proximal.deepinv")
