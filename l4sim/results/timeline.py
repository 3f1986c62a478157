"""A run as a Chrome trace, to be opened in Perfetto (ui.perfetto.dev)."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l4sim.errors import InputError
from l4sim.results.run import Run
from l4sim.results.write import unwritable

# Process numbers in the trace: one for the instances, one for the migrations.
INSTANCES, MIGRATIONS = 1, 2

LOADABLE_BYTES = 256 << 20
"""Perfetto opens files of this size without trouble; ours, from its memory limit of 2 GiB in a browser."""

Event = dict[str, Any]
Window = tuple[float, float]
Spans = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Starts and ends of an instance's segments, in seconds."""


def write_timeline(run: Run, path: Path, window: Window | None = None) -> Path:
    """Write the run as Chrome trace JSON (the "Trace Event Format", times in microseconds); return the file.

    Instances are tracks and their segments slices; KV cache use is a counter per instance, and the stages' boundaries
    are counters; migrations are slices on tracks of their own, and every request that was moved is a flow from
    instance to instance. Only what overlaps ``window`` (seconds, from and to) is written, and written whole. The same
    run gives the same bytes. Raises InputError if the window is empty or the file cannot be written.
    """
    low_s, high_s = window if window is not None else (-np.inf, np.inf)
    if not low_s < high_s:
        raise InputError(f"timeline window {low_s}..{high_s}: give a start before an end, in seconds")
    segments = run.iterations[(run.iterations["end_s"] > low_s) & (run.iterations["start_s"] < high_s)]
    segments = segments.sort_values(["instance", "start_s"], kind="stable")
    begin_s = run.migrations["start_s"].fillna(run.migrations["asked_s"])
    finish_s = run.migrations["end_s"].fillna(begin_s)
    inside = (finish_s >= low_s) & (begin_s <= high_s)
    migrations = run.migrations.assign(begin_s=begin_s, finish_s=finish_s)[inside].sort_values("begin_s", kind="stable")
    events = [
        *_names(run),
        *_segment_events(segments),
        *_migration_events(migrations),
        *_boundary_events(run, (max(low_s, 0.0), high_s)),
        *_flow_events(segments, migrations[migrations["status"] == "done"]),
    ]
    text = json.dumps({"displayTimeUnit": "ms", "traceEvents": events}, separators=(",", ":"))
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def _names(run: Run) -> Iterator[Event]:
    for process, name in ((INSTANCES, f"{run.policy}: instances"), (MIGRATIONS, f"{run.policy}: migrations")):
        yield {"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}}
    for instance in range(run.instance_count):
        name = f"instance {instance}"
        yield {"ph": "M", "name": "thread_name", "pid": INSTANCES, "tid": instance, "args": {"name": name}}


def _segment_events(segments: Any) -> Iterator[Event]:
    for row in segments.itertuples(index=False):
        track = {"pid": INSTANCES, "tid": row.instance, "ts": _us(row.start_s)}
        name = f"{row.decode_requests} decode"
        if row.prefill_requests:
            name += f" + {row.prefill_requests} prefill"
        figures = {
            "iterations": row.iterations,
            "context_tokens": row.context_tokens,
            "prefill_tokens": row.prefill_tokens,
            "waiting_requests": row.waiting_requests,
        }
        yield {"ph": "X", "name": name, "dur": _duration_us(row.start_s, row.end_s), "args": figures} | track
        yield {"ph": "C", "name": f"KV blocks, instance {row.instance}", "args": {"used": row.kv_blocks_used}} | track


def _migration_events(migrations: Any) -> Iterator[Event]:
    """One slice per migration, on the first track that is free: slices of one track must not overlap."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    tracks = 0
    for row in migrations.itertuples(index=False):
        while busy and busy[0][0] <= row.begin_s:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            heapq.heappush(free, tracks)
            tracks += 1
        track = heapq.heappop(free)
        heapq.heappush(busy, (row.finish_s, track))
        yield {
            "ph": "X",
            "name": f"{row.kind} {row.request_id}: {row.source} to {row.destination}, {row.status}",
            "pid": MIGRATIONS,
            "tid": track,
            "ts": _us(row.begin_s),
            "dur": _duration_us(row.begin_s, row.finish_s),
            "args": {
                "context_tokens": row.context_tokens,
                "copied_bytes": row.copied_bytes,
                "pause_us": None if np.isnan(row.pause_s) else _us(row.pause_s),
                "stages": row.stages,
                "reason": row.reason,
            },
        }


def _boundary_events(run: Run, window: Window) -> Iterator[Event]:
    """Where each stage but the last ends: a counter that starts with the plan and steps when the boundary moves."""
    if run.plan is None:
        return
    low_s, high_s = window
    for stage, planned in enumerate(run.plan[:-1]):
        moves = run.boundaries[run.boundaries["stage"] == stage]
        held = [(0.0, planned.hi_tokens), *zip(moves["time_s"], moves["hi_tokens"], strict=True)]
        # The value that a window opens with was set before it.
        before = [(low_s, tokens) for time_s, tokens in held if time_s <= low_s][-1:]
        for time_s, tokens in before + [(time_s, tokens) for time_s, tokens in held if low_s < time_s <= high_s]:
            name = f"boundary of stage {stage}"
            yield {"ph": "C", "name": name, "pid": MIGRATIONS, "ts": _us(time_s), "args": {"tokens": int(tokens)}}


def _flow_events(segments: Any, migrations: Any) -> Iterator[Event]:
    """A flow per request across its migrations; its ends lie inside segments, as Perfetto binds them to the slices
    around.

    A migration whose source or destination has no segment at hand (outside the window) is not part of the flow.
    """
    tracks = {
        instance: (rows["start_s"].to_numpy(), rows["end_s"].to_numpy())
        for instance, rows in segments.groupby("instance")
    }
    for number, (request_id, rows) in enumerate(migrations.groupby("request_id", sort=False)):
        ends = [end for row in rows.itertuples(index=False) for end in _flow_ends(row, tracks)]
        for index, (instance, time_s) in enumerate(ends):
            phase = "s" if index == 0 else "f" if index == len(ends) - 1 else "t"
            binding = {} if phase == "s" else {"bp": "e"}
            flow = {"ph": phase, "name": f"request {request_id}", "cat": "migration", "id": number}
            yield flow | binding | {"pid": INSTANCES, "tid": instance, "ts": _us(time_s)}


def _flow_ends(migration: Any, tracks: Mapping[int, Spans]) -> list[tuple[int, float]]:
    """The instance and time at which a migration leaves, and those at which it arrives; none outside the window."""
    if migration.source not in tracks or migration.destination not in tracks:
        return []
    (start_s, end_s), (resumed_s, finished_s) = tracks[migration.source], tracks[migration.destination]
    left = np.searchsorted(start_s, migration.begin_s, side="right") - 1
    entered = np.searchsorted(finished_s, migration.finish_s, side="right")
    if left < 0 or entered == len(resumed_s):
        return []
    return [
        (migration.source, min(migration.begin_s, end_s[left])),
        (migration.destination, max(migration.finish_s, resumed_s[entered])),
    ]


def _us(seconds: float) -> float:
    """Microseconds, rounded to the nanosecond."""
    return round(float(seconds) * 1e6, 3)


def _duration_us(start_s: float, end_s: float) -> float:
    """From one rounded time to the other, so that a slice never overlaps the next."""
    return round(_us(end_s) - _us(start_s), 3)
