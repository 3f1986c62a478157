"""WEKA's recorded coding-agent sessions (kv-cache-tester; mirrors by SemiAnalysis): one JSON object per session.

What is replayed, from the fields:

- ``t`` is a request's start in seconds since its session began; nothing says when a session began, so sessions need a
  rate. ``in`` is the full prompt, its repeated prefix included; ``out`` the answer.
- Requests are closed-loop. Each follows the request of its stream whose answer ended last before it began, after the
  recorded pause between the two. Replaying ``t`` itself would tie the pace to the recorded server, and ``think_time``
  alone would double count: where ``api_time`` is absent it reaches back to the last known end.
- An answer ends ``api_time`` after ``t``. Where that is absent (interrupted streams), the median ``api_time`` of the
  file is assumed, at most up to the stream's next request.
- A subagent is a stream of its own that branches off where it appears; its parent's next request waits for it if it had
  ended by then. Requests that overlap branch off the same predecessor. Inside a subagent ``t`` counts from its
  beginning, or (newer mirrors) from the session's: the latter if no such request of the file is earlier than its
  subagent's own ``t``.
- ``hash_ids`` stand for ``block_size`` tokens each, full blocks only (1,117 of the 1,140 sampled prompts have a
  remainder, and all have floor(in / block_size) ids); ids local to a session are renumbered, its subagents included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from l4sim.errors import InputError
from l4sim.workload.formats.base import Format, Options, fields
from l4sim.workload.parsed import ParsedRequests
from l4sim.workload.prefix_blocks import block_counts, read_prefix_blocks
from l4sim.workload.raw_records import RawRecords, from_objects, integers, labels, numbers, tokens
from l4sim.workload.trace import FloatArray, IntArray, PrefixBlocks

CLOCK_S = 1.0
"""Starts are recorded in whole seconds, so an answer may seem to end up to this much after its successor's start."""


@dataclass(slots=True)
class _Stream:
    """A session's or a subagent's requests in order: rows of the flat columns, and subagents between them."""

    start_s: float
    items: list[int | _Stream] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Clock:
    """Recorded starts and ends of all requests, and where the links between them are written."""

    start_s: FloatArray
    end_s: FloatArray
    after: IntArray
    delay_s: FloatArray


def _read(records: RawRecords, _: Options) -> ParsedRequests:
    owners, streams, requests, markers = _flatten(records)
    prompt_tokens = tokens(requests, "in")
    output_tokens = tokens(requests, "out", least=0)
    start_s = numbers(requests, "t", "seconds >= 0", least=0.0)
    nested = ~np.isnan(markers)
    if not (nested.any() and (start_s[nested] >= markers[nested]).all()):
        start_s = start_s + np.nan_to_num(markers)

    api_s = numbers(requests, "api_time", "seconds >= 0", least=0.0, optional=True)
    unknown = int(np.isnan(api_s).sum())
    usual_s = float(np.nanmedian(api_s)) if unknown < len(api_s) else 0.0
    end_s = start_s + np.where(np.isnan(api_s), usual_s, api_s)
    after = np.full(len(requests), -1, dtype=np.int64)
    delay_s = np.full(len(requests), np.nan)
    clock = _Clock(start_s, end_s, after, delay_s)
    for stream in streams:
        _cap_unknown_ends(stream, clock, np.isnan(api_s))
        _link(stream, clock, before=-1)

    names = labels(records, "id")
    turns = np.arange(len(owners)) - np.searchsorted(owners, owners)
    warning = (
        f"{unknown} of {len(requests)} requests have no api_time: the median of the others ({usual_s:g} s) is used"
    )
    return ParsedRequests(
        prompt_tokens,
        output_tokens,
        request_id=[
            f"{names[owner] or records.numbers[owner]}:{turn}"
            for owner, turn in zip(owners, turns.tolist(), strict=True)
        ],
        session=list(map(str, owners)),
        after=after,
        delay_s=delay_s,
        prefix=_prefix(records, requests, owners, prompt_tokens),
        warnings=(warning,) if unknown else (),
    )


def _flatten(records: RawRecords) -> tuple[list[int], list[_Stream], RawRecords, FloatArray]:
    """Every session's requests as flat columns in the order of the file.

    Returns the session of each request, the streams, the columns, and the subagent's start that each request's ``t``
    may count from (NaN outside subagents).
    """
    owners: list[int] = []
    objects: list[Mapping[str, Any]] = []
    entries: list[str] = []
    markers: list[float] = []

    def collect(items: Any, owner: int, label: str, stream: _Stream, marker_s: float) -> None:
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise InputError(f"{records.where(owner, label)} is not accepted; expected a list of objects")
        for index, item in enumerate(items):
            where = f"{label}[{index}]"
            if item.get("type") == "subagent":
                alone = from_objects(records.path, [item], [records.numbers[owner]], [where])
                start_s = float(numbers(alone, "t", "seconds >= 0", least=0.0)[0])
                branch = _Stream(start_s)
                stream.items.append(branch)
                collect(item.get("requests"), owner, f"{where}.requests", branch, start_s)
            else:
                stream.items.append(len(objects))
                owners.append(owner)
                objects.append(item)
                entries.append(where)
                markers.append(marker_s)

    streams = []
    for owner, items in enumerate(records.column("requests")):
        streams.append(_Stream(0.0))
        collect(items, owner, "requests", streams[-1], np.nan)
    if not objects:
        raise InputError(f"{records.path}: the file holds no requests")
    lines = [records.numbers[owner] for owner in owners]
    return owners, streams, from_objects(records.path, objects, lines, entries), np.array(markers)


def _cap_unknown_ends(stream: _Stream, clock: _Clock, unknown: np.ndarray) -> None:
    """Cut assumed ends to the start of the next request of the same stream."""
    rows = [item for item in stream.items if isinstance(item, int)]
    for row, following in pairwise(rows):
        if unknown[row]:
            clock.end_s[row] = min(clock.end_s[row], max(clock.start_s[following], clock.start_s[row]))
    for item in stream.items:
        if isinstance(item, _Stream):
            _cap_unknown_ends(item, clock, unknown)


def _link(stream: _Stream, clock: _Clock, before: int) -> int:
    """Fill in each request's predecessor and delay; ``before`` is the row that the stream branches off.

    Returns the stream's last row.
    """
    running: list[int] = []
    last = before
    for item in stream.items:
        start_s = clock.start_s[item] if isinstance(item, int) else item.start_s
        ended = [row for row in running if clock.end_s[row] <= start_s + CLOCK_S]
        if ended:
            before = max(ended, key=lambda row: float(clock.end_s[row]))
        # A session's second request may overlap its first: there is nothing else to follow.
        follows = before if before >= 0 or not running else running[-1]
        if isinstance(item, int):
            clock.after[item] = follows
            if follows >= 0:
                clock.delay_s[item] = max(0.0, start_s - clock.end_s[follows])
            running = [row for row in running if row not in ended]
            last = item
        else:
            last = _link(item, clock, follows)
        if last >= 0 and last not in running:
            running.append(last)
    return last


def _prefix(
    records: RawRecords, requests: RawRecords, owners: list[int], prompt_tokens: IntArray
) -> PrefixBlocks | None:
    """The ids of all requests, renumbered over the file where they are local to their session."""
    sizes = integers(records, "block_size", 1, 1_000_000, "tokens")
    scopes = ["local" if scope is None else scope for scope in records.column("hash_id_scope")]
    for row, scope in enumerate(scopes):
        if scope not in ("local", "global"):
            records.refuse(row, "hash_id_scope", "'local' or 'global'")
        if scope != scopes[0] or sizes[row] != sizes[0]:
            raise InputError(f"{records.where(row)}: block_size and hash_id_scope differ from the first session's")
    block_tokens = int(sizes[0])
    least, most = prompt_tokens // block_tokens, block_counts(prompt_tokens, block_tokens)
    prefix = read_prefix_blocks(requests, "hash_ids", least, most, block_tokens)
    if prefix is None or scopes[0] == "global":
        return prefix
    session = np.repeat(np.array(owners), np.diff(prefix.offsets))
    distinct, local = np.unique(prefix.ids, return_inverse=True)
    _, renumbered = np.unique(session * len(distinct) + local, return_inverse=True)
    return PrefixBlocks(renumbered.astype(np.int64), prefix.offsets, block_tokens)


FORMATS = (
    Format(
        "weka",
        (fields("requests", "block_size"),),
        fields("id", "models", "hash_id_scope", "tool_tokens", "system_tokens", "totals"),
        _read,
    ),
)
