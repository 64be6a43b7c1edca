import json

import pytest

from visionlab.figures import Claim, Figure, at_least, at_most
from visionlab.figures.record import table_from_json, table_to_json


@pytest.mark.parametrize(
    ("op", "limit", "holds"),
    [("<=", 1, True), ("<=", 0.9, False), (">=", 1, True), (">", 1, False), ("<", 1.1, True)],
)
def test_a_claim_is_compared_with_the_value(op, limit, holds):
    assert Claim("x", op, limit).holds({"x": 1.0}) is holds


def test_a_figure_holds_if_all_its_claims_do():
    assert Figure("a", {"x": 1}, claims=[at_most("x", 1), at_least("x", 1)]).holds is True
    assert Figure("a", {"x": 1}, claims=[at_most("x", 1), at_least("x", 2)]).holds is False
    assert Figure("a", {"x": 1}).holds is None


def test_a_claim_about_a_missing_number_is_no_claim_that_holds():
    with pytest.raises(ValueError, match="a claim needs the number 'y'; values: x"):
        at_most("y", 1).holds({"x": 1})
    with pytest.raises(ValueError, match="one of <=, >=, <, >, got '=='"):
        Claim("x", "==", 1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("id", "name", "a table's id is 'part.name', got 'name'"),
        ("device", "tpu", "device is cpu or gpu, got 'tpu'"),
        ("source", "guessed", "source is one of measured, run folder, transcribed: 'guessed'"),
        ("figures", [Figure("a", {}), Figure("a", {})], "two rows have the same name"),
    ],
)
def test_bad_tables_are_refused(make, field, value, message):
    with pytest.raises(ValueError, match=message):
        make(**{field: value})


def test_json_and_back(make):
    table = make(chart="ms", units={"ms": "ms"})
    plain = json.loads(json.dumps(table_to_json(table)))
    assert table_to_json(table_from_json(plain)) == table_to_json(table)
    assert table_from_json(plain).figures[0].holds is True
    with pytest.raises(ValueError, match=r"not a table of figures \(part.name\).*colour"):
        table_from_json(plain | {"colour": "red"})
    with pytest.raises(ValueError, match="not a table of figures"):
        table_from_json({k: v for k, v in plain.items() if k != "columns"})


def test_a_record_stands_alone(make):
    first, second = make().records()
    assert first["id"] == "part.name.ours"
    assert first["holds"] is True
    assert first["spread"] == {"ms": [0.9, 1.2]}
    assert second["holds"] is None
    for key in ("section", "values", "device", "source", "command", "machine", "versions", "date"):
        assert second[key], key
