"""Reading a JSON object field by field, with errors that name the file and the field."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l4sim.errors import InputError


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object, and where it stands: every reader raises ``InputError`` naming both."""

    values: Mapping[str, Any]
    where: str
    """The file, and the path of fields to this object."""

    def only(self, *names: str) -> Fields:
        """This object, if it has no other fields than these."""
        for name in self.values:
            if name not in names:
                raise InputError(f"{self.where}: unknown field {name}, accepted are {', '.join(names)}")
        return self

    def get(self, name: str) -> Any:
        """Any field that is there."""
        if name not in self.values:
            raise InputError(f"{self.where}: {name} is missing")
        return self.values[name]

    def number(self, name: str) -> float:
        """A finite number >= 0."""
        return _number(self.get(name), f"{self.where}: {name}")

    def positive(self, name: str) -> float:
        """A finite number above 0."""
        value = self.number(name)
        if value == 0:
            raise InputError(f"{self.where}: {name} is 0, accepted is a number above 0")
        return value

    def optional_positive(self, name: str) -> float | None:
        """A finite number above 0; None where the field is missing or null."""
        return None if self.values.get(name) is None else self.positive(name)

    def count(self, name: str, default: int | None = None) -> int:
        """A whole number >= 1; the default, if there is one, where the field is missing or null."""
        if default is not None and self.values.get(name) is None:
            return default
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{self.where}: {name} is {value!r}, accepted is a whole number >= 1")
        return value

    def flag(self, name: str, default: bool | None = None) -> bool:
        """True or false; the default, if there is one, where the field is missing."""
        if default is not None and name not in self.values:
            return default
        value = self.get(name)
        if not isinstance(value, bool):
            raise InputError(f"{self.where}: {name} is {value!r}, accepted are true and false")
        return value

    def text(self, name: str) -> str:
        """A string that is not empty."""
        value = self.get(name)
        if not isinstance(value, str) or not value:
            raise InputError(f"{self.where}: {name} is {value!r}, accepted is a text")
        return value

    def optional_text(self, name: str) -> str | None:
        """A string, or null for what is not known."""
        return None if self.get(name) is None else self.text(name)

    def object(self, name: str) -> Fields:
        """A nested object."""
        value = self.get(name)
        if not isinstance(value, dict):
            raise InputError(f"{self.where}: {name} is not an object")
        return Fields(value, f"{self.where}: {name}")

    def objects(self, name: str) -> tuple[Fields, ...]:
        """A list of nested objects, maybe empty."""
        value = self.get(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise InputError(f"{self.where}: {name} is not a list of objects")
        return tuple(Fields(item, f"{self.where}: {name}[{number}]") for number, item in enumerate(value))

    def numbers(self, name: str, *, signed: bool = False) -> tuple[float, ...]:
        """A list of at least one finite number, >= 0 unless signed."""
        return _numbers(self.get(name), f"{self.where}: {name}", signed=signed)

    def ascending(self, name: str) -> tuple[float, ...]:
        """A list of numbers >= 0, each above the one before."""
        values = self.numbers(name)
        if any(high <= low for low, high in itertools.pairwise(values)):
            raise InputError(f"{self.where}: {name} must be ascending")
        return values

    def grid(self, name: str, rows: int, columns: int) -> tuple[tuple[float, ...], ...]:
        """A list of ``rows`` lists of ``columns`` finite numbers."""
        value = self.get(name)
        where = f"{self.where}: {name}"
        lists = tuple(_numbers(row, where, signed=True) for row in value) if isinstance(value, list) else ()
        if len(lists) != rows or any(len(row) != columns for row in lists):
            raise InputError(f"{where} must be {rows} lists of {columns} numbers")
        return lists


def read_fields(path: Path) -> Fields:
    """The object in a JSON file.

    Raises:
        InputError: no such file, or no JSON object in it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: not a JSON object")
    return Fields(values, str(path))


def _numbers(value: Any, where: str, *, signed: bool) -> tuple[float, ...]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{where} is not a list of numbers")
    return tuple(_number(item, where, signed=signed) for item in value)


def _number(value: Any, where: str, *, signed: bool = False) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or (value < 0 and not signed):
        raise InputError(f"{where} is {value!r}, accepted is a number" + ("" if signed else " >= 0"))
    return float(value)
