"""YAML from anyone: plain data of a bounded size, interpolations as they stand."""

import pytest

from visionlab.yaml_files import load

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system ['touch pwned']\n", "python/object/apply:os.system"),
        ("a: !!python/name:os.system\n", "python/name:os.system"),
        ("a: !!python/object/new:os.system [x]\n", "python/object/new"),
        (LAUGHS, "write out to more than"),
        ("a: &a [*a]\n", "write out to more than"),
        ("[" * 20000, "nested too deeply"),
        ("a: " + "{a: " * 5000 + "1" + "}" * 5000, "nested too deeply"),
        ("a: " + "y" * 2**21, "are no config"),
        ("a: [1", "expected"),
        ("a: 1\na: 2", "duplicate"),
        ("\x00", "special characters"),
    ],
    ids=range(11),
)
def test_what_is_no_config_gets_one_line(text, message, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ValueError, match="codec can't decode"):
        load(tmp_path / "c.yaml")


def test_plain_data_comes_back_with_its_interpolations(tmp_path):
    text = "a: &x {b: [1, 2.5, null, true]}\nc: *x\nd: ${a.b}\n"
    (tmp_path / "c.yaml").write_text(text)
    inner = {"b": [1, 2.5, None, True]}
    assert load(tmp_path / "c.yaml") == {"a": inner, "c": inner, "d": "${a.b}"}
    (tmp_path / "c.yaml").write_text("")
    assert load(tmp_path / "c.yaml") in (None, {})
