"""One named row for every table that a run leaves, with the words of its text columns.

While a run goes on a table is one flat array of doubles (`Table`): a million requests leave hundreds of megabytes as
objects. A text is a number there, an index into the table's words.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from struct import Struct
from typing import Any, Generic, NamedTuple, TypeVar, get_type_hints

REQUEST_STATUSES = ("finished", "rejected", "failed")
MIGRATION_STATUSES = ("done", "refused", "aborted")


class RequestRow(NamedTuple):
    """One request. Times count from its arrival, and are NaN unless it has finished."""

    request_id: int
    """Its row in the trace; the table says its name there."""
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    """Prompt tokens found in a prefix cache at the first admission."""
    queue_s: float
    """Until it was first scheduled."""
    ttft_s: float
    tpot_s: float
    """NaN for one-token outputs, as is ``max_itl_s``."""
    max_itl_s: float
    e2e_s: float
    normalized_latency_s: float
    migrations: int
    preemptions: int
    first_instance: int
    """-1 where none was reached, as is ``last_instance``."""
    last_instance: int
    status: str
    """One of `REQUEST_STATUSES`."""
    reason: str
    """Why it was rejected or has failed; else empty."""


class SegmentRow(NamedTuple):
    """Equal iterations of one instance in a row. Requests and tokens are those of one iteration."""

    instance: int
    start_s: float
    end_s: float
    iterations: int
    decode_requests: int
    prefill_requests: int
    prefill_tokens: int
    context_tokens: int
    """Sum over the decoding requests at the segment's start."""
    context_std_tokens: float
    """Their standard deviation."""
    waiting_requests: int
    kv_blocks_used: int
    kv_blocks_total: int


class MigrationRow(NamedTuple):
    """One migration that was asked for; times that were not reached are NaN."""

    request_id: int
    """The request's row in the trace; the table says its name there."""
    kind: str
    """What it was for: ``handover`` or ``rebalance`` for bundled policies."""
    source: int
    destination: int
    asked_s: float
    start_s: float
    pause_start_s: float
    end_s: float
    pause_s: float
    context_tokens: int
    """When it was asked for, then when the request left the source."""
    copied_bytes: int
    stages: int
    status: str
    """One of `MIGRATION_STATUSES`."""
    reason: str
    """Why it was refused or aborted; else empty."""


class BoundaryRow(NamedTuple):
    """A stage's boundary was moved: from ``time_s`` on, ``stage`` ends at ``hi_tokens``."""

    time_s: float
    stage: int
    hi_tokens: int


def column_types(row: type[Any]) -> dict[str, type]:
    """A table's columns as they are written: the rows' own, the request by its name in the trace, after the policy."""
    return {"policy": str, **get_type_hints(row), **({"request_id": str} if "request_id" in row._fields else {})}


Row = TypeVar("Row", bound=tuple[Any, ...])


class Table(Generic[Row]):
    """Rows of one kind, in the order in which they were added."""

    def __init__(self, row: type[Row], words: Mapping[str, Sequence[str]] | None = None) -> None:
        """``words``: by text column, the words that have a number from the start."""
        self.columns: tuple[str, ...] = row._fields  # type: ignore[attr-defined]
        self.numbers = array("d")
        """Row after row."""
        self._row = row
        given = words or {}
        texts = [name for name, kind in get_type_hints(row).items() if kind is str]
        self._numbers_of: dict[str, dict[str, int]] = {
            name: {word: number for number, word in enumerate(given.get(name, ()))} for name in texts
        }
        # An array takes bytes in half the time of numbers one by one.
        self._pack = Struct(f"{len(self.columns)}d").pack
        self._texts = [(self.columns.index(name), numbers) for name, numbers in self._numbers_of.items()]

    def __len__(self) -> int:
        return len(self.numbers) // len(self.columns)

    @property
    def words(self) -> dict[str, tuple[str, ...]]:
        """By text column, the words by their numbers."""
        return {name: tuple(numbers) for name, numbers in self._numbers_of.items()}

    def add(self, row: Row) -> None:
        """Add a row."""
        values: list[Any] = list(row)
        for place, numbers in self._texts:
            values[place] = numbers.setdefault(values[place], len(numbers))
        self.numbers.frombytes(self._pack(*values))

    def add_numbers(self, *row: float) -> None:
        """Add a row of a table without texts by its values, where even the rows' class would take too long."""
        self.numbers.frombytes(self._pack(*row))

    def extend(self, rows: Iterable[Row]) -> None:
        """Add rows."""
        for row in rows:
            self.add(row)

    def __iter__(self) -> Iterator[Row]:
        """The rows as they were added, whole numbers as floats."""
        width, texts = len(self.columns), [(place, tuple(numbers)) for place, numbers in self._texts]
        for start in range(0, len(self.numbers), width):
            values: list[Any] = list(self.numbers[start : start + width])
            for place, words in texts:
                values[place] = words[int(values[place])]
            yield self._row._make(values)  # type: ignore[attr-defined]


def request_table() -> Table[RequestRow]:
    """An empty table of requests."""
    return Table(RequestRow, {"status": REQUEST_STATUSES, "reason": ("",)})


def segment_table() -> Table[SegmentRow]:
    """An empty table of segments of iterations."""
    return Table(SegmentRow)


def migration_table() -> Table[MigrationRow]:
    """An empty table of migrations."""
    return Table(MigrationRow, {"status": MIGRATION_STATUSES, "reason": ("",)})
