"""Formats with several requests in one record: AIBrix and LLMServingSim.

``aibrix`` (its workload generator): all ``requests`` of a record arrive at its ``timestamp``, in milliseconds.

``llmservingsim`` (casys-kaist): nanoseconds. A record is one request, or an agentic session whose ``sub_requests``
run one after another: each waits ``tool_duration_ns`` of the one before it after that one's answer. Both kinds may
share a file.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from l4sim.workload.formats.base import Format, Options, fields
from l4sim.workload.parsed import ParsedRequests
from l4sim.workload.raw_records import UNITS_PER_S, RawRecords, labels, nested, numbers, times, tokens


def _read_aibrix(records: RawRecords, options: Options) -> ParsedRequests:
    arrival_s = times(records, "timestamp", "ms", options.time_unit)
    owners, requests = nested(records, "requests")
    # Older generators write "Prompt Length", newer ones "prompt_length".
    prompt, output = (
        ("prompt_length", "output_length")
        if "prompt_length" in requests.columns
        else ("Prompt Length", "Output Length")
    )
    return ParsedRequests(
        tokens(requests, prompt),
        tokens(requests, output, least=0),
        arrival_s[owners],
        session=labels(requests, "session_id"),
    )


def _read_llmservingsim(records: RawRecords, options: Options) -> ParsedRequests:
    arrival_s = times(records, "arrival_time_ns", "ns", options.time_unit)
    single = [turns is None for turns in records.column("sub_requests")]
    if all(single):
        return ParsedRequests(tokens(records, "input_toks"), tokens(records, "output_toks", least=0), arrival_s)

    alone = zip(records.column("input_toks"), records.column("output_toks"), strict=True)
    turn_lists = [
        [{"input_toks": prompt, "output_toks": output}] if is_single else turns
        for is_single, turns, (prompt, output) in zip(single, records.column("sub_requests"), alone, strict=True)
    ]
    owners, turns = nested(replace(records, columns={"sub_requests": turn_lists}), "sub_requests")
    owner = np.array(owners, dtype=np.int64)
    follows = np.concatenate(([False], owner[1:] == owner[:-1])) if len(owner) else np.zeros(0, dtype=bool)
    tool_s = numbers(turns, "tool_duration_ns", "a duration >= 0", least=0.0, optional=True)
    tool_s = np.nan_to_num(tool_s) / UNITS_PER_S[options.time_unit or "ns"]
    return ParsedRequests(
        tokens(turns, "input_toks"),
        tokens(turns, "output_toks", least=0),
        np.where(follows, np.nan, arrival_s[owner]),
        session=[None if single[row] else str(row) for row in owners],
        after=np.where(follows, np.arange(len(owner)) - 1, -1),
        delay_s=np.where(follows, np.roll(tool_s, 1), np.nan),
    )


FORMATS = (
    Format("aibrix", (fields("timestamp", "requests"),), fields(), _read_aibrix),
    Format(
        "llmservingsim",
        (fields("arrival_time_ns", "input_toks", "output_toks"), fields("arrival_time_ns", "sub_requests")),
        fields("session_id", "input_tok_ids", "output_tok_ids"),
        _read_llmservingsim,
    ),
)
