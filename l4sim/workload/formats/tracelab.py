"""TraceLab's rounds of coding-agent sessions (uw-syfi/TraceLab, sanitized ``round_trace.jsonl``).

A round is one request: ``input_tokens_total`` is its full prompt, of which ``prefix_tokens`` were cached when it came.
It arrives at the last of the inputs (user message, tool result) that ``timing_events`` list before its first output.
Rounds have absolute times, so they wait for nothing. A round shares its ``prefix_tokens`` with the session's round
before it, prompt and answer; what the first round of a session shares with other sessions is not recorded.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile

import numpy as np

from l4sim.workload.formats.base import Format, Options, fields
from l4sim.workload.parsed import ParsedRequests
from l4sim.workload.prefix_blocks import runs_of_rows
from l4sim.workload.raw_records import RawRecords, labels, times, tokens

INPUT_EVENTS = ("user_message", "tool_result")


def _read(records: RawRecords, options: Options) -> ParsedRequests:
    prompt_tokens = tokens(records, "input_tokens_total")
    session = labels(records, "session_id")
    last: dict[str | None, int] = {None: -1}
    previous = np.empty(len(records), dtype=np.int64)
    for row, name in enumerate(session):
        previous[row] = last.get(name, -1)
        if name is not None:
            last[name] = row
    starts = replace(records, columns={"timing_events": _starts(records)})
    output_tokens = tokens(records, "output_tokens", least=0)
    shared_tokens = np.minimum(tokens(records, "prefix_tokens", least=0), prompt_tokens)
    return ParsedRequests(
        prompt_tokens,
        output_tokens,
        times(starts, "timing_events", "s", options.time_unit),
        request_id=labels(records, "round_id"),
        session=session,
        prefix=runs_of_rows(prompt_tokens + output_tokens, previous, shared_tokens),
    )


def _starts(records: RawRecords) -> list[object]:
    """The time stamp at which each round's last input arrived."""
    starts: list[object] = []
    for row, events in enumerate(records.column("timing_events")):
        if not isinstance(events, list) or not events or not all(isinstance(event, dict) for event in events):
            records.refuse(row, "timing_events", "a list of events with event_type and timestamp")
        inputs = list(takewhile(lambda event: event.get("event_type") in INPUT_EVENTS, events))
        starts.append((inputs or events[:1])[-1].get("timestamp"))
    return starts


FORMATS = (
    Format(
        "tracelab",
        (fields("session_id", "input_tokens_total", "prefix_tokens", "output_tokens", "timing_events"),),
        fields(
            "provider", "project", "round_index", "round_id", "turn_id", "model", "newly_append_tokens", "tools",
            "claude_uncached_input_tokens", "claude_cache_creation_input_tokens", "claude_cache_read_input_tokens",
            "reasoning_output_tokens", "current_input_event_count", "current_user_message_count",
            "current_tool_result_count", "current_user_message_chars", "current_tool_result_chars",
            "current_input_chars", "first_input_event_type", "store", "trace_key",
        ),
        _read,
    ),
)  # fmt: skip
