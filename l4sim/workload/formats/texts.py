"""Formats that hold texts instead of lengths: ShareGPT, vLLM's custom dataset, AIPerf's single and multi turn.

In conversations (``sharegpt``, ``aiperf_multi_turn``) every answer is one request, whose prompt is the conversation
before it. It arrives once the answer before it has ended: ``delay`` milliseconds later in AIPerf, at once in ShareGPT.
Turns of AIPerf with a ``timestamp`` (milliseconds) arrive then. A prompt's tokens are the sum over
its messages. Each prompt begins with the one before it and its answer.

AIPerf's files and vLLM's prompts without ``output_tokens`` say nothing of the answers' lengths: the default of vLLM's
benchmark is assumed, with a warning.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from l4sim.errors import InputError
from l4sim.workload.formats.base import Format, Options, fields
from l4sim.workload.parsed import ParsedRequests
from l4sim.workload.prefix_blocks import runs_of_rows
from l4sim.workload.raw_records import (
    MAX_TOKENS,
    MISSING,
    UNITS_PER_S,
    RawRecords,
    labels,
    nested,
    numbers,
    texts,
    times,
    tokens,
)
from l4sim.workload.tokens import ASSUMED_OUTPUT_TOKENS
from l4sim.workload.trace import IntArray

ANSWERERS = frozenset({"gpt", "assistant", "chatgpt", "bing", "bard"})
ASKERS = frozenset({"human", "user", "system"})


def _read_sharegpt(records: RawRecords, options: Options) -> ParsedRequests:
    owners, messages = nested(records, "conversations")
    speakers = texts(messages, "from")
    sizes = _counts(messages, "value", options)
    prompts: list[int] = []
    outputs: list[int] = []
    turns_of: list[int] = []
    said, unanswered, unprompted = 0, 0, 0
    for row, (owner, speaker) in enumerate(zip(owners, speakers, strict=True)):
        if speaker not in ANSWERERS and speaker not in ASKERS:
            messages.refuse(row, "from", f"one of {', '.join(sorted(ASKERS | ANSWERERS))}")
        is_first = row == 0 or owners[row - 1] != owner
        is_last = row + 1 == len(owners) or owners[row + 1] != owner
        said = 0 if is_first else said
        if speaker in ASKERS:
            unanswered += is_last
        elif is_first:
            unprompted += 1
        else:
            prompts.append(said)
            outputs.append(int(sizes[row]))
            turns_of.append(owner)
        said += int(sizes[row])
    if not prompts:
        raise InputError(f"{records.path}: no conversation holds an answer to a prompt")
    after = _previous(turns_of)
    warnings = [options.counter.warning] if options.counter.warning else []
    if unanswered:
        warnings.append(
            f"{unanswered} of {len(records)} conversations end with an unanswered message, which is left out"
        )
    if unprompted:
        warnings.append(
            f"{unprompted} of {len(records)} conversations begin with an answer: it only adds to the later prompts"
        )
    silent = len(records) - len(set(turns_of))
    if silent:
        warnings.append(f"{silent} of {len(records)} conversations hold no answered prompt and are left out")
    prompt_tokens = _checked(np.array(prompts, dtype=np.int64), records, turns_of)
    output_tokens = np.array(outputs, dtype=np.int64)
    lengths = prompt_tokens + output_tokens
    return ParsedRequests(
        prompt_tokens,
        output_tokens,
        request_id=_turn_ids(records, "id", turns_of),
        session=list(map(str, turns_of)),
        after=after,
        delay_s=np.where(after >= 0, 0.0, np.nan),
        prefix=runs_of_rows(lengths, after, lengths[after]),
        warnings=tuple(warnings),
    )


def _read_vllm_custom(records: RawRecords, options: Options) -> ParsedRequests:
    output_tokens, warnings = _outputs(records, "output_tokens", options)
    return ParsedRequests(_counts(records, "prompt", options), output_tokens, warnings=warnings)


def _read_aiperf_single(records: RawRecords, options: Options) -> ParsedRequests:
    output_tokens, warnings = _outputs(records, "output_length", options)
    return ParsedRequests(
        _counts(records, "text", options),
        output_tokens,
        times(records, "timestamp", "ms", options.time_unit, optional=True),
        session=labels(records, "session_id"),
        warnings=warnings,
    )


def _read_aiperf_multi(records: RawRecords, options: Options) -> ParsedRequests:
    owners, turns = nested(records, "turns")
    texts_tokens = _counts(turns, "text", options)
    output_tokens, warnings = _outputs(turns, "output_length", options)
    arrival_s = times(turns, "timestamp", "ms", options.time_unit, optional=True)
    delay_s = numbers(turns, "delay", "a delay >= 0", least=0.0, optional=True)
    delay_s /= UNITS_PER_S[options.time_unit or "ms"]
    previous = _previous(owners)
    waits = (previous >= 0) & (np.isnan(arrival_s) | ~np.isnan(delay_s))
    prompt_tokens = texts_tokens.copy()
    for row in np.flatnonzero(previous >= 0).tolist():
        prompt_tokens[row] += prompt_tokens[row - 1] + output_tokens[row - 1]
    prompt_tokens = _checked(prompt_tokens, records, owners)
    lengths = prompt_tokens + output_tokens
    return ParsedRequests(
        prompt_tokens,
        output_tokens,
        np.where(waits, np.nan, arrival_s),
        request_id=_turn_ids(records, "session_id", owners),
        session=list(map(str, owners)),
        after=np.where(waits, previous, -1),
        delay_s=np.where(waits, np.nan_to_num(delay_s), np.nan),
        prefix=runs_of_rows(lengths, previous, lengths[previous]),
        warnings=warnings,
    )


def _counts(records: RawRecords, field: str, options: Options) -> IntArray:
    return np.array([options.counter.count(text) for text in texts(records, field)], dtype=np.int64)


def _outputs(records: RawRecords, field: str, options: Options) -> tuple[IntArray, tuple[str, ...]]:
    """Output tokens, assumed where the file gives none, and the warnings that a format of texts needs."""
    given = [ASSUMED_OUTPUT_TOKENS if value is MISSING or value == "" else value for value in records.column(field)]
    output_tokens = tokens(replace(records, columns={field: given}), field, least=0)
    assumed = sum(value is MISSING or value == "" for value in records.column(field))
    warnings = () if options.counter.warning is None else (options.counter.warning,)
    if assumed:
        lacking = f"{assumed} of {len(records)} requests come without an output length"
        warnings = (*warnings, f"{lacking}: {ASSUMED_OUTPUT_TOKENS} tokens are assumed")
    return output_tokens, warnings


def _checked(prompt_tokens: IntArray, records: RawRecords, owners: list[int]) -> IntArray:
    """The same prompts. Raises `InputError` if one has grown longer than is accepted."""
    if len(prompt_tokens) and prompt_tokens.max() > MAX_TOKENS:
        row = owners[int(prompt_tokens.argmax())]
        raise InputError(f"{records.where(row)}: a prompt of {prompt_tokens.max():,} tokens; expected {MAX_TOKENS:,}")
    return prompt_tokens


def _previous(owners: list[int]) -> IntArray:
    """The row before each, -1 where a conversation begins; rows of a conversation stand together."""
    return np.array(
        [row - 1 if row and owners[row - 1] == owner else -1 for row, owner in enumerate(owners)], dtype=np.int64
    )


def _turn_ids(records: RawRecords, field: str, owners: list[int]) -> list[str]:
    """``conversation:turn``, by the conversation's own id in ``field`` or its line; turns count from 0."""
    names = labels(records, field)
    turns: Counter[int] = Counter()
    ids = []
    for owner in owners:
        ids.append(f"{names[owner] or records.numbers[owner]}:{turns[owner]}")
        turns[owner] += 1
    return ids


FORMATS = (
    Format("sharegpt", (fields("conversations"),), fields("id"), _read_sharegpt),
    Format("vllm_custom", (fields("prompt"),), fields("output_tokens"), _read_vllm_custom),
    Format(
        "aiperf_single_turn", (fields("text"),), fields("timestamp", "session_id", "output_length"), _read_aiperf_single
    ),
    Format("aiperf_multi_turn", (fields("turns"),), fields("session_id"), _read_aiperf_multi),
)
