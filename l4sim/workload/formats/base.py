"""What the loader knows of a trace format: its name, its fields, its reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from l4sim.workload.parsed import ParsedRequests
from l4sim.workload.raw_records import RawRecords
from l4sim.workload.tokens import TokenCounter


@dataclass(frozen=True, slots=True)
class Options:
    """How the user wants a file to be read."""

    time_unit: str | None
    """ns, us, ms or s; None for the format's own."""
    counter: TokenCounter
    block_tokens: int | None = None
    """Tokens per prefix-block id; None for the format's own, or what lengths tell."""


@dataclass(frozen=True, slots=True)
class Format:
    """One published trace format."""

    name: str
    signatures: tuple[frozenset[str], ...]
    """A record is of this format if it has all fields of one of these, and no format wants more of its fields."""
    known: frozenset[str]
    """Further fields that the format is known to have; fields beyond these are named in a warning."""
    read: Callable[[RawRecords, Options], ParsedRequests]

    def matched(self, fields: frozenset[str]) -> int:
        """How many fields the largest signature within ``fields`` has, 0 if there is none."""
        return max((len(signature) for signature in self.signatures if signature <= fields), default=0)


def fields(*names: str) -> frozenset[str]:
    """The set of field names."""
    return frozenset(names)
