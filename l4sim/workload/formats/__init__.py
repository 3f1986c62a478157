"""The trace formats that are read, and how a file's format is recognised."""

from __future__ import annotations

from collections.abc import Mapping

from l4sim.errors import InputError
from l4sim.plugins import find
from l4sim.workload.formats import mooncake, nested, tables, texts, tracelab, weka
from l4sim.workload.formats.base import Format
from l4sim.workload.raw_records import MISSING, RawRecords, quoted

FORMATS: Mapping[str, Format] = {
    known.name: known for module in (tables, mooncake, nested, texts, tracelab, weka) for known in module.FORMATS
}
"""Every format by name."""


GROUP = "l4sim.formats"
"""Where other packages offer formats of theirs, as entry points."""


def named(name: str) -> Format:
    """The format called ``name``: one of `FORMATS`, another package's, or a ``module:attribute``.

    Raises `InputError` if there is none (see `l4sim.plugins.find`), or what is found is no `Format`.
    """
    found = find(GROUP, name, FORMATS)
    if not isinstance(found, Format):
        raise InputError(f"trace format '{name}' is a {type(found).__name__}: accepted is a Format")
    return found


def recognise(records: RawRecords) -> Format:
    """The format of ``records``, by the fields of the first.

    Raises `InputError` if that is of no known format, or another record is not of the same.
    """
    kinds: dict[frozenset[str], Format | None] = {}
    first: Format | None = None
    for row, present in enumerate(_fields_of_rows(records)):
        if present not in kinds:
            kinds[present] = _best(present)
        kind = kinds[present]
        if first is None:
            if kind is None:
                place = f"{records.path}, line 1" if records.text else records.where(row)
                raise InputError(f"{place}: no known trace format has the fields {_listed(present)}; {_known()}")
            first = kind
        elif kind is not first:
            other = "none that is known" if kind is None else kind.name
            raise InputError(
                f"{records.where(row)}: the fields {_listed(present)} are of format {other}, "
                f"but the file began as {first.name}; expected one format per file"
            )
    assert first is not None, "a file without records is refused when it is read"
    return first


def unused_fields(records: RawRecords, kind: Format) -> list[str]:
    """Fields of ``records`` that the format is not known to have, and that are therefore not read."""
    expected = kind.known.union(*kind.signatures)
    return [field for field in records.columns if field not in expected]


def _fields_of_rows(records: RawRecords) -> list[frozenset[str]]:
    """The fields that each record has."""
    if records.text:
        # An empty cell is still a cell: a table's format is its header's.
        return [frozenset(records.columns)]
    names = list(records.columns)
    rows = zip(*records.columns.values(), strict=True) if names else [()] * len(records)
    shapes: dict[tuple[bool, ...], frozenset[str]] = {}
    present = []
    for values in rows:
        shape = tuple([value is not MISSING for value in values])
        if shape not in shapes:
            shapes[shape] = frozenset(name for name, has in zip(names, shape, strict=True) if has)
        present.append(shapes[shape])
    return present


def _best(present: frozenset[str]) -> Format | None:
    """The format that explains most of the fields."""
    best = max(FORMATS.values(), key=lambda known: known.matched(present))
    return best if best.matched(present) else None


def _listed(present: frozenset[str]) -> str:
    listed = sorted(present)[:8]
    return (", ".join(map(quoted, listed)) or "(none)") + (", ..." if len(present) > len(listed) else "")


def _known() -> str:
    signatures = [f"{known.name} ({', '.join(sorted(known.signatures[0]))})" for known in FORMATS.values()]
    return f"known are {'; '.join(signatures)}"
