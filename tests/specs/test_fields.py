"""Reading JSON field by field: what is wrong is named with its place."""

from pathlib import Path
from typing import Any

import pytest

from l4sim.errors import InputError
from l4sim.specs.fields import Fields, read_fields


def fields(**values: Any) -> Fields:
    return Fields(values, "file.json")


@pytest.mark.parametrize(
    ("reader", "value", "message"),
    [
        ("number", -1, "file.json: x is -1, accepted is a number >= 0"),
        ("number", True, "file.json: x is True"),
        ("number", float("nan"), "file.json: x is nan"),
        ("positive", 0, "file.json: x is 0, accepted is a number above 0"),
        ("count", 1.5, "file.json: x is 1.5, accepted is a whole number >= 1"),
        ("flag", 1, "file.json: x is 1, accepted are true and false"),
        ("text", "", "file.json: x is '', accepted is a text"),
        ("optional_text", 3, "file.json: x is 3, accepted is a text"),
        ("object", [], "file.json: x is not an object"),
        ("numbers", [], "file.json: x is not a list of numbers"),
        ("ascending", [1, 1], "file.json: x must be ascending"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_accepted(reader: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        getattr(fields(x=value), reader)("x")
    assert str(refusal.value).startswith(message)


def test_a_nested_field_is_named_by_its_path() -> None:
    with pytest.raises(InputError, match=r"file\.json: outer: inner is missing"):
        fields(outer={}).object("outer").number("inner")


def test_unknown_fields_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="unknown field b, accepted are a"):
        fields(a=1, b=2).only("a")


def test_a_grid_must_have_its_shape() -> None:
    assert fields(x=[[1, -2], [3, 4]]).grid("x", 2, 2) == ((1.0, -2.0), (3.0, 4.0))
    with pytest.raises(InputError, match="x must be 3 lists of 2 numbers"):
        fields(x=[[1, 2], [3, 4]]).grid("x", 3, 2)


def test_a_file_must_hold_an_object(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[]")
    with pytest.raises(InputError, match=r"a\.json: not a JSON object"):
        read_fields(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_fields(tmp_path / "missing.json")
