"""Tables by part, in the order of the README."""

from visionlab.figures.parts import PARTS, in_order


def test_parts_come_in_their_order_unknown_ones_last_and_tables_as_they_were(make):
    names = ["other.z", "rotation.b", "masking.b", "rotation.a", "proximal.x", "masking.a"]
    found = in_order({n: make(id=n) for n in names})
    assert list(found) == [
        "masking.b", "masking.a", "proximal.x", "rotation.b", "rotation.a", "other.z"
    ]  # fmt: skip
    assert list(PARTS)[:4] == ["masking", "proximal", "moe", "rotation"]
