from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict, Unpack

import pytest
from torch import nn

from visionlab import schema


class Component:
    def __init__(
        self, width: int, *, scale: float = 1.0, size: tuple[int, int] = (1, 1), root: Path = Path()
    ):
        self.width, self.scale, self.size, self.root = width, scale, size, root


def test_static_and_real_readings_of_a_signature_agree():
    from visionlab.data.images import ImageData

    static = schema.static_arguments("visionlab.data.images:ImageData")
    assert static == set(schema.parameters(ImageData))


def test_static_reading_gives_up_where_the_text_cannot_tell():
    assert schema.static_arguments("visionlab.backbones:create_backbone") is None  # **kwargs
    assert schema.static_arguments("visionlab.tasks.optimizers:Lars") is None  # inherited
    assert schema.static_arguments(Component) is None


class Options(TypedDict, total=False):
    depth: int
    names: list[str]


def test_named_options_behind_two_stars_are_part_of_the_schema():
    def build(width: int, **options: Unpack[Options]) -> None: ...

    def anything(width: int, **options: int) -> None: ...

    found = schema.parameters(build)
    assert {n: p.annotation for n, p in found.items()} == {
        "width": int, "depth": int, "names": list[str]
    }  # fmt: skip
    assert [n for n, p in found.items() if schema.is_required(p)] == ["width"]
    assert not schema.accepts_anything(build)
    assert set(schema.parameters(anything)) == {"width"}
    assert schema.accepts_anything(anything)


@pytest.mark.parametrize(
    ("value", "annotation", "fits"),
    [
        (1, int, True), (True, int, False), (1, float, True), (True, float, False),
        ("a", int, False), (None, int | None, True), ("b", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False), ([1, 2], tuple[int, int], True),
        ([1, 2, 3], tuple[int, int], False), ([1, "a"], Sequence[int], False),
        ("abc", Sequence[str], False), ({"a": 1}, Mapping[str, int], True),
        ({"a": "x"}, Mapping[str, int], False), ("x", Path, True), (3, nn.Module, False),
        ([[1, 2], [3, 4]], tuple[tuple[int, int], ...], True), (3, "anything", True),
    ],
)  # fmt: skip
def test_plain_values_are_judged_by_annotation(value, annotation, fits):
    assert (schema.mismatch(value, annotation) is None) is fits


def test_expectation_reads_well():
    assert schema.mismatch("x", int | None) == "int or null"
    assert schema.mismatch(3, Literal["a", "b"]) == "one of 'a', 'b'"


def test_values_are_converted_where_the_annotation_asks():
    assert schema.convert([1, 2], tuple[int, int]) == (1, 2)
    assert schema.convert([[1, 2], [3, 4]], tuple[tuple[int, int], ...]) == ((1, 2), (3, 4))
    assert schema.convert("a/b", Path | None) == Path("a/b")
    assert schema.convert("a/b", str | Path) == "a/b"
    assert isinstance(schema.convert(1, float), float)
    assert schema.convert([1], int | tuple[int, ...]) == (1,)


def test_source_file_is_found_without_importing():
    assert schema.source_file("lightning.pytorch.trainer.trainer").name == "trainer.py"
    assert schema.source_file("visionlab").name == "__init__.py"
    assert schema.source_file("no_such_package.module") is None
