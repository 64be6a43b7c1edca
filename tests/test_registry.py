import subprocess
import sys

import pytest

from visionlab.registry import Registry, UnknownNameError, lazy_exports, suggest


def test_lazy_entry_is_imported_on_first_use():
    shapes = Registry("shape", {"path": "pathlib:Path"})
    assert shapes.place("path") == "pathlib:Path"
    assert shapes.get("path").__name__ == "Path"


def test_misspelt_name_gets_the_nearest_right_one():
    masks = Registry("mask", {"green": "a:b", "blue": "a:c"})
    with pytest.raises(UnknownNameError, match=r"no mask 'gren'\. Did you mean 'green'\?"):
        masks.get("gren")


def test_suggestion_ignores_case_and_lists_all_of_a_few():
    assert suggest("GREEN", ["green", "red"]) == "Did you mean 'green'? Known: 'green', 'red'."
    assert suggest("k", ["top_k", "dim"]) == "Known: 'dim', 'top_k'."


def test_long_list_is_not_printed_whole():
    text = suggest("name17", [f"name{i}" for i in range(100)])
    assert "'name17'" in text
    assert "100 names" in text


def test_register_refuses_another_object_under_a_taken_name():
    things = Registry("thing")

    @things.register("a")
    class A: ...

    assert things.register("a")(A) is A
    with pytest.raises(ValueError, match="already registered"):
        things.register("a")(int)


def test_names_match_patterns():
    assert Registry("x", {"vit_s": "", "vit_b": "", "cnn": ""}).names("vit_*") == ["vit_b", "vit_s"]


def test_name_of_another_type_is_refused():
    with pytest.raises(TypeError, match="is a string, got int 3"):
        Registry("x", {}).place(3)


def test_lazy_exports_name_the_nearest_attribute():
    get, names = lazy_exports("visionlab", {"load": "checkpoint"})
    assert names() == ["load"]
    with pytest.raises(AttributeError, match="Did you mean 'load'"):
        get("laod")


def test_import_visionlab_is_light_and_quick():
    code = (
        "import time; t = time.process_time(); import visionlab, sys; "
        "d = time.process_time() - t; "
        "assert not {'torch', 'numpy', 'numba', 'lightning'} & set(sys.modules); print(d)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            for _ in range(3)]  # fmt: skip
    assert min(float(r.stdout) for r in runs) < 0.1
