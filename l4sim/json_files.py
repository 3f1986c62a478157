"""Reading JSON into frozen dataclasses, by msgspec: what does not fit is refused with its file and field."""

from __future__ import annotations

import json
import re
import reprlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, inspect

from l4sim.errors import InputError

T = TypeVar("T")

# Infinities are no JSON, but coefficients may also come from Python; NaN fails every comparison.
_FINITE = sys.float_info.max

Number = Annotated[float, Meta(ge=-_FINITE, le=_FINITE)]
NonNegative = Annotated[float, Meta(ge=0, le=_FINITE)]
Positive = Annotated[float, Meta(gt=0, le=_FINITE)]
Count = Annotated[int, Meta(ge=1)]
Text = Annotated[str, Meta(min_length=1)]
NonNegatives = Annotated[tuple[NonNegative, ...], Meta(min_length=1)]
Numbers = Annotated[tuple[Number, ...], Meta(min_length=1)]

_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]+)`")
_AT = re.compile(r"(?P<message>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_STEP = re.compile(r"\.(?P<field>[^.\[]+)|\[(?P<index>\d+)\]")


def read_json(path: Path, kind: type[T], *, others: bool = False) -> T:
    """The object in a JSON file, as a dataclass whose annotations say what is accepted.

    ``others``: whether it may have further fields, as files that other programs write do.

    Raises:
        InputError: no such file, no JSON object in it, or a field that is missing, unknown or invalid.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return decode_json(text, kind, str(path), others=others)


def decode_json(text: bytes, kind: type[T], where: str, *, others: bool = False) -> T:
    """The same of a JSON text; ``where`` is what errors call it.

    Raises:
        InputError: no JSON object, or a field that is missing, unknown or invalid.
    """
    try:
        values = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f"{where}: not a JSON object")
    return checked(values, kind, where, others=others)


def read_plain(path: Path) -> dict[str, Any]:
    """The object in a JSON file as plain values; numbers may be ``Infinity`` or ``NaN``, as Python writes them.

    Raises:
        InputError: no such file, or no JSON object in it.
    """
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: not a JSON object")
    return values


def checked(values: Any, kind: type[T], where: str, *, others: bool = False) -> T:
    """The same of plain values, as JSON has them; ``where`` is what errors call them.

    Raises:
        InputError: a field that is missing, unknown or invalid.
    """
    info = _type_info(kind)  # type: ignore[arg-type]  # mypy does not take a type variable's class for hashable
    if not others:
        _refuse_unknown(values, info, where)
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise InputError(_explained(str(error), values, info, where)) from None


def checked_items(values: Mapping[str, Any], kind: type[T], where: str) -> dict[str, T]:
    """Plain values by name, each as a dataclass.

    Raises:
        InputError: a field that is missing, unknown or invalid.
    """
    return {name: checked(value, kind, f"{where}: {name}") for name, value in values.items()}


def refuse_unsorted(name: str, values: Sequence[float]) -> None:
    """Check that every value is above the one before.

    Raises:
        InputError: it is not.
    """
    if any(high <= low for low, high in pairwise(values)):
        raise InputError(f"{name} must be ascending")


@lru_cache
def _type_info(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _refuse_unknown(values: Any, info: inspect.Type, where: str) -> None:
    """Refuse fields that a dataclass does not have, which msgspec passes over."""
    known = _fields(info)
    if isinstance(values, dict) and known:
        for name in values:
            if name not in known:
                raise InputError(f"{where}: unknown field {name}, accepted are {', '.join(known)}")
    for step, value, inner in _nested(values, info):
        _refuse_unknown(value, inner, where + step)


def _fields(info: inspect.Type) -> dict[str, inspect.Type]:
    """The fields of a dataclass, or of the one that a union offers; empty for other types."""
    for kind in _alternatives(info):
        if isinstance(kind, (inspect.DataclassType, inspect.StructType)):
            return {field.encode_name: field.type for field in kind.fields}
    return {}


def _items(info: inspect.Type) -> inspect.Type | None:
    """What a list or a variable tuple is of."""
    lists = (kind for kind in _alternatives(info) if isinstance(kind, (inspect.ListType, inspect.VarTupleType)))
    return next((kind.item_type for kind in lists), None)


def _alternatives(info: inspect.Type) -> tuple[inspect.Type, ...]:
    info = info.type if isinstance(info, inspect.Metadata) else info
    return info.types if isinstance(info, inspect.UnionType) else (info,)


def _nested(values: Any, info: inspect.Type) -> Iterator[tuple[str, Any, inspect.Type]]:
    """What is inside, of which more is known: the step that leads there in an error's path, the value and its type."""
    if isinstance(values, dict):
        yield from ((f": {name}", values[name], inner) for name, inner in _fields(info).items() if name in values)
    elif isinstance(values, list) and (item := _items(info)) is not None:
        yield from ((f"[{index}]", value, item) for index, value in enumerate(values))


def _explained(error: str, values: Any, info: inspect.Type, where: str) -> str:
    """A message of msgspec's as ours: the path of fields, the value there, and what is accepted in its place."""
    found = _AT.fullmatch(error)
    message, path = (error, "") if found is None else (found["message"], found["path"] or "")
    for step in _STEP.finditer(path):
        name = f": {step['field']}" if step["field"] else f"[{step['index']}]"
        where += name
        inside = {key: (value, inner) for key, value, inner in _nested(values, info)}
        if name not in inside:
            return f"{where}: {message}"
        values, info = inside[name]
    missing = _MISSING.fullmatch(message)
    if missing is not None:
        return f"{where}: {missing['field']} is missing"
    if message.startswith(("Expected", "Invalid enum value")):
        return f"{where} is {reprlib.repr(values)}, accepted is {_accepted(info)}"
    return f"{where}: {message}"


def _accepted(info: inspect.Type) -> str:
    return " or ".join(map(_described, _alternatives(info)))


def _described(info: inspect.Type) -> str:
    match info:
        case inspect.FloatType(gt=above) if above is not None:
            return f"a number above {above:g}"
        case inspect.FloatType(ge=least) if least is not None and least > -_FINITE:
            return f"a number >= {least:g}"
        case inspect.FloatType():
            return "a number"
        case inspect.IntType(ge=least, le=most) if least is not None and most is not None:
            return f"a whole number from {least} to {most:,}"
        case inspect.IntType(ge=least) if least is not None:
            return f"a whole number >= {least}"
        case inspect.IntType():
            return "a whole number"
        case inspect.BoolType():
            return "true or false"
        case inspect.StrType():
            return "a text"
        case inspect.LiteralType(values=values):
            return ", ".join(sorted(map(str, values)))
        case inspect.NoneType():
            return "null"
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return f"a list, each {_accepted(item)}"
        case _:
            return "an object"
