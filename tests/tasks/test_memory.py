import sys

from visionlab.tasks.memory import keep_freed_memory


def test_only_where_the_c_library_has_the_setting(monkeypatch):
    assert keep_freed_memory() in (True, False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
