"""Reading a run that `l4sim record` wrote: vLLM's own scheduler told of every request and of every iteration.

``meta.json`` and the moments in ``requests.jsonl.gz`` have the names of LLMServingSim's form, which holds less.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np

from l4sim.batch import Batch, Prefill
from l4sim.calibration.points.tables import find_file, has_file
from l4sim.errors import InputError
from l4sim.json_files import Count, NonNegative, Positive, decode_json
from l4sim.recordings.llmservingsim import read_engine_options
from l4sim.recordings.recording import RecordedRequests, Recording
from l4sim.workload.trace import PrefixBlocks

ITERATIONS = "iterations.jsonl"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OwnRequest:
    """A line of ``requests.jsonl.gz``; moments in seconds on one clock, None where they never came."""

    number: int
    """In the order in which the engine queued them; iterations name requests by it."""
    request_id: str
    input_toks: Count
    output_toks: int
    arrival_ts: NonNegative
    """When the front end took it."""
    queued_ts: NonNegative
    """When the engine did, which it does between two iterations."""
    prefix_ids: tuple[int, ...]
    """Of the prompt's full KV blocks: equal where a block and all before it are."""
    answer_ids: tuple[int, ...] = ()
    """Of the full KV blocks that hold tokens of the answer."""
    first_token_ts: NonNegative | None = None
    last_token_ts: NonNegative | None = None
    finish_reason: str | None = None
    preemptions: int = 0
    cached_toks: int | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What an iteration computed of one request."""

    request: int
    tokens: int
    context_tokens: int
    """Computed before."""
    samples: bool
    """Whether the request got a token."""

    @property
    def decodes(self) -> bool:
        """Whether it is one token behind a context, which costs the same whatever it is of."""
        return self.tokens == 1 and self.context_tokens > 0 and self.samples


@dataclass(frozen=True, slots=True)
class RecordedIteration:
    """One iteration of the engine."""

    start_s: float
    """When the one before ended, or the request came that ended the engine's idleness."""
    scheduled_s: float
    end_s: float
    work: tuple[Work, ...]

    @property
    def seconds(self) -> float:
        """How long it took, the host's part included."""
        return self.end_s - self.start_s

    @property
    def batch(self) -> Batch:
        """What was computed: one token behind a context is a decode, all else a prompt's chunk."""
        decodes = [one.context_tokens + 1 for one in self.work if one.decodes]
        chunks = tuple(Prefill(one.tokens, one.context_tokens, one.samples) for one in self.work if not one.decodes)
        return Batch(np.array(decodes, dtype=np.int64), sum(decodes), chunks)


@dataclass(frozen=True, slots=True)
class _Iteration:
    """A line of ``iterations.jsonl.gz``."""

    start_ts: NonNegative
    scheduled_ts: NonNegative
    end_ts: Positive
    work: tuple[tuple[int, Count, int, int], ...]

    def __post_init__(self) -> None:
        if not self.start_ts < self.end_ts:
            raise InputError("end_ts is not above start_ts")
        if not self.work:
            raise InputError("work is empty")


def recognises(folder: Path) -> bool:
    """Whether a folder holds a run in this form."""
    return has_file(folder, ITERATIONS) and has_file(folder, "requests.jsonl")


def read_recording(folder: Path) -> Recording:
    """Read such a folder; latencies count from the moment at which a request reached the engine.

    The engine takes requests between two iterations, so a request waits for the one under way: what it waited counts,
    and its arrival is when the front end took it, plus the shortest way from there to the engine in this run.

    Raises:
        InputError: what `read_engine_options` and `read_requests` refuse.
    """
    engine = read_engine_options(folder)
    return Recording(folder, engine, recorded_requests(folder, engine.block_tokens))


def recorded_requests(folder: Path, block_tokens: int) -> RecordedRequests:
    """The requests in order of arrival; those that were aborted have no latencies (NaN).

    Raises:
        InputError: as `read_requests`; no request got a token.
    """
    rows = [row for row in read_requests(folder) if row.output_toks]
    if not rows:
        raise InputError(f"{folder}: no request got a token")
    way_s = min(row.queued_ts - row.arrival_ts for row in rows)
    rows.sort(key=lambda row: row.arrival_ts)
    arrival_s, first_s, last_s = (
        np.array([getattr(row, name) for row in rows], dtype=np.float64)
        for name in ("arrival_ts", "first_token_ts", "last_token_ts")
    )
    arrival_s += way_s
    output = np.array([row.output_toks for row in rows])
    served = np.where([row.finish_reason in ("stop", "length") for row in rows], 0.0, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot_s = np.where(output > 1, (last_s - first_s) / (output - 1), np.nan)
    return RecordedRequests(
        tuple(row.request_id for row in rows),
        arrival_s - arrival_s[0],
        np.array([row.input_toks for row in rows]),
        output,
        first_s - arrival_s + served,
        tpot_s + served,
        last_s - arrival_s + served,
        prefix_blocks(rows, block_tokens),
    )


def read_requests(folder: Path) -> list[OwnRequest]:
    """The requests as they stand in ``requests.jsonl.gz``, in the order in which the engine queued them.

    Raises:
        InputError: no such file, no requests, or a field that is missing or impossible (with its line).
    """
    path = find_file(folder, "requests.jsonl")
    rows = sorted(_lines(path, OwnRequest), key=lambda row: row.number)
    if not rows:
        raise InputError(f"{path}: no requests")
    return rows


def read_iterations(folder: Path) -> list[RecordedIteration]:
    """The iterations in the order in which they ran.

    Raises:
        InputError: no such file, no iterations, or a field that is missing or impossible (with its line).
    """
    path = find_file(folder, ITERATIONS)
    found = [
        RecordedIteration(
            row.start_ts,
            row.scheduled_ts,
            row.end_ts,
            tuple(Work(request, tokens, done, bool(samples)) for request, tokens, done, samples in row.work),
        )
        for row in _lines(path, _Iteration)
    ]
    if not found:
        raise InputError(f"{path}: no iterations")
    return found


def prefix_blocks(rows: Sequence[OwnRequest], block_tokens: int) -> PrefixBlocks:
    """What these requests, in this order, have in common: prompts, and answers that later prompts begin with."""
    ids = [[*row.prefix_ids, *row.answer_ids] for row in rows]
    counts = [len(own) for own in ids]
    ends = [block_tokens * (block + 1) for count in counts for block in range(count)]
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64, count=len(ends))
    return PrefixBlocks(flat, offsets, block_tokens, np.array(ends, dtype=np.int64))


def _lines(path: Path, kind: type[T]) -> Iterator[T]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield decode_json(line, kind, f"{path}, line {number}", others=True)
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
