"""Reading JSON into dataclasses: what is wrong is named with its place, its value and what is accepted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from l4sim.errors import InputError
from l4sim.json_files import (
    Count,
    NonNegative,
    NonNegatives,
    Number,
    Numbers,
    Positive,
    Text,
    checked,
    checked_items,
    read_json,
    read_plain,
    refuse_unsorted,
)


class Renamed(msgspec.Struct, frozen=True):
    inner: Count = msgspec.field(name="outer_name")


@dataclass(frozen=True)
class Pair:
    low: Number = 0.0
    high: Number = 1.0

    def __post_init__(self) -> None:
        if self.high <= self.low:
            raise InputError("high must be above low")


@dataclass(frozen=True)
class Everything:
    number: Number = 0.0
    share: NonNegative = 0.0
    rate: Positive = 1.0
    count: Count = 1
    flag: bool = False
    text: Text = "a"
    optional: Text | None = None
    choice: Literal["tile", "mean"] = "tile"
    sizes: NonNegatives = (0.0,)
    signed: Numbers = (0.0,)
    pair: Pair = Pair()
    pairs: tuple[Pair, ...] = ()
    maybe: Pair | None = None
    renamed: Renamed | None = None


@dataclass(frozen=True)
class Needed:
    pair: Pair


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("number", True, "file.json: number is True, accepted is a number"),
        ("number", math.nan, "file.json: number is nan"),
        ("number", math.inf, "file.json: number is inf"),
        ("share", -1, "file.json: share is -1, accepted is a number >= 0"),
        ("rate", 0, "file.json: rate is 0, accepted is a number above 0"),
        ("rate", "fast", "file.json: rate is 'fast'"),
        ("rate", None, "file.json: rate is None"),
        ("count", 1.5, "file.json: count is 1.5, accepted is a whole number >= 1"),
        ("count", 0, "file.json: count is 0, accepted is a whole number >= 1"),
        ("flag", 1, "file.json: flag is 1, accepted is true or false"),
        ("text", "", "file.json: text is '', accepted is a text"),
        ("optional", 3, "file.json: optional is 3, accepted is a text or null"),
        ("choice", "max", "file.json: choice is 'max', accepted is mean, tile"),
        ("sizes", [], "file.json: sizes is [], accepted is a list, each a number >= 0"),
        ("sizes", [1, -1], "file.json: sizes[1] is -1, accepted is a number >= 0"),
        ("signed", 3, "file.json: signed is 3, accepted is a list, each a number"),
        ("pair", [], "file.json: pair is [], accepted is an object"),
        ("pair", {"low": 2}, "file.json: pair: high must be above low"),
        ("pair", {"lo": 2}, "file.json: pair: unknown field lo, accepted are low, high"),
        ("pairs", [{}, {"low": "x"}], "file.json: pairs[1]: low is 'x', accepted is a number"),
        ("pairs", [{}, {"lo": 2}], "file.json: pairs[1]: unknown field lo"),
        ("maybe", {"lo": 2}, "file.json: maybe: unknown field lo"),
        ("renamed", {"inner": 2}, "file.json: renamed: unknown field inner, accepted are outer_name"),
        ("renamed", {"outer_name": 0}, "file.json: renamed: outer_name is 0, accepted is a whole number >= 1"),
        ("speed", 1, "file.json: unknown field speed, accepted are number, share"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_accepted(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        checked({name: value}, Everything, "file.json")
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_a_missing_field_is_named_by_its_path() -> None:
    with pytest.raises(InputError, match=r"file\.json: pair is missing"):
        checked({}, Needed, "file.json")


def test_right_values_become_a_dataclass() -> None:
    given = {
        "share": 2,
        "count": 3,
        "pair": {"low": -1},
        "maybe": None,
        "signed": [-1, 2],
        "renamed": {"outer_name": 4},
    }
    made = checked(given, Everything, "file.json")
    assert made == Everything(share=2.0, count=3, pair=Pair(-1.0), maybe=None, signed=(-1.0, 2.0), renamed=Renamed(4))
    assert isinstance(made.share, float), "whole numbers are numbers too"


def test_objects_by_name_are_named_in_errors() -> None:
    assert checked_items({"a": {}}, Pair, "file.json: pairs") == {"a": Pair()}
    with pytest.raises(InputError, match=r"file\.json: pairs: b: low is 'x'"):
        checked_items({"a": {}, "b": {"low": "x"}}, Pair, "file.json: pairs")
    with pytest.raises(InputError, match=r"file\.json: pairs: b is 3, accepted is an object"):
        checked_items({"b": 3}, Pair, "file.json: pairs")


def test_values_that_must_rise_do() -> None:
    refuse_unsorted("sizes", [1, 2, 5])
    with pytest.raises(InputError, match="sizes must be ascending"):
        refuse_unsorted("sizes", [1, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[]", "not a JSON object"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"low": NaN}', "not JSON"),
        (b'{"low": 1e999}', "not JSON"),
        (b'{"low": "\xff"}', "not JSON"),
        (b'{"low": ' + 100_000 * b"[", "not JSON"),
    ],
    ids=["list", "empty", "cut", "nan", "infinity", "latin-1", "deep"],
)
def test_a_file_must_hold_an_object(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(InputError) as refusal:
        read_json(path, Pair)
    assert str(refusal.value).startswith(f"{path}: {message}")


def test_a_file_that_is_not_there_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.json: cannot be read"):
        read_json(tmp_path / "missing.json", Pair)


def test_fields_that_are_not_read_may_be_passed_over() -> None:
    given = {"low": 2.0, "high": 3.0, "other": "x"}
    assert checked(given, Pair, "here", others=True) == Pair(2.0, 3.0)
    with pytest.raises(InputError, match="here: low is 'x', accepted is a number"):
        checked({"low": "x", "other": 1}, Pair, "here", others=True)


def test_plain_values_may_be_infinite(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"limit": [0.0, Infinity]}')
    assert read_plain(path) == {"limit": [0.0, math.inf]}


@pytest.mark.parametrize(("text", "told"), [("{", "not JSON"), ("[1]", "not a JSON object"), (None, "cannot be read")])
def test_plain_values_that_cannot_be_read_name_their_file(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=rf"config\.json: {told}"):
        read_plain(path)
