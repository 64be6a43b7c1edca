"""Tables that read well in a terminal and as Markdown."""

from visionlab.tasks.tables import format_table


def test_numbers_stand_right_text_left_and_nothing_is_an_empty_cell():
    rows = [{"task": "a", "mIoU": 12.34567, "n": 3}, {"task": "longer", "mIoU": None, "n": 1200}]
    assert format_table(rows, "Title").splitlines() == [
        "Title",
        "",
        "| task   |  mIoU |    n |",
        "|--------|------:|-----:|",
        "| a      | 12.35 |    3 |",
        "| longer |       | 1200 |",
    ]


def test_keys_of_any_row_are_columns_in_their_order():
    lines = format_table([{"a": 1}, {"a": 2, "b": True}]).splitlines()
    assert lines[0] == "| a | b    |"
    assert lines[2:] == ["| 1 |      |", "| 2 | True |"]


def test_no_rows():
    assert format_table([], "Title") == "Title\n(no rows)"
    assert format_table([]) == "(no rows)"
