"""Formats whose rows carry prefix block ids: Mooncake with the Dynamo session convention, and Qwen-Bailian.

``mooncake`` (kvcache-ai/Mooncake; docs of ai-dynamo): milliseconds; one id per 512 prompt tokens, or as many as lengths
or the user tell, the last block perhaps partial. A row of a session with ``delay`` (milliseconds after the session's
previous answer), or without ``timestamp``, waits for the session's previous row; a row with ``timestamp`` alone comes
when that says, session or not. ``input_length`` is the whole prompt, earlier turns included. Dynamo's own examples
list fewer ids than a prompt has blocks: rows of sessions may, and what is behind the ids counts as shared with nobody.

``qwen_bailian`` (alibaba-edu/qwen-bailian-usagetraces): seconds; 16 tokens per id; ``parent_chat_id`` links the turns
of a conversation (-1 for its first). Turns have time stamps, so they wait for nothing.
"""

from __future__ import annotations

import numpy as np

from l4sim.workload.formats.base import Format, Options, fields
from l4sim.workload.parsed import ParsedRequests
from l4sim.workload.prefix_blocks import block_counts, id_counts, read_prefix_blocks, told_by_lengths
from l4sim.workload.raw_records import UNITS_PER_S, RawRecords, labels, numbers, times, tokens

MOONCAKE_BLOCK_TOKENS = 512
QWEN_BLOCK_TOKENS = 16


def _read_mooncake(records: RawRecords, options: Options) -> ParsedRequests:
    prompt_tokens = tokens(records, "input_length")
    session = labels(records, "session_id")
    arrival_s = times(records, "timestamp", "ms", options.time_unit, optional=True)
    delay_s = numbers(records, "delay", "a delay >= 0", least=0.0, optional=True)
    delay_s /= UNITS_PER_S[options.time_unit or "ms"]

    after = np.full(len(records), -1, dtype=np.int64)
    last: dict[str, int] = {}
    for row, name in enumerate(session):
        if name is None:
            if np.isnan(arrival_s[row]):
                records.refuse(row, "timestamp", "a time, as the row is of no session")
            if not np.isnan(delay_s[row]):
                records.refuse(row, "delay", "a delay only in rows of a session")
            continue
        waits = name in last and (np.isnan(arrival_s[row]) or not np.isnan(delay_s[row]))
        if waits:
            after[row] = last[name]
            arrival_s[row] = np.nan
            delay_s[row] = np.nan_to_num(delay_s[row])
        else:
            delay_s[row] = np.nan
        last[name] = row

    told = options.block_tokens or told_by_lengths(id_counts(records, "hash_ids"), prompt_tokens, MOONCAKE_BLOCK_TOKENS)
    block_tokens = told or MOONCAKE_BLOCK_TOKENS
    most = block_counts(prompt_tokens, block_tokens)
    in_session = np.array([name is not None for name in session])
    least = np.where(in_session, 1, prompt_tokens // block_tokens if told else most)
    prefix = read_prefix_blocks(records, "hash_ids", least, most, block_tokens)
    warnings = []
    if prefix is not None and block_tokens != (options.block_tokens or MOONCAKE_BLOCK_TOKENS):
        warnings.append(
            f"hash_ids stand for {block_tokens} tokens each, as the prompts' lengths tell, not for "
            f"{MOONCAKE_BLOCK_TOKENS}: --trace-block-size overrides"
        )
    short = 0 if prefix is None else int((np.diff(prefix.offsets) < prompt_tokens // block_tokens).sum())
    if short:
        warnings.append(
            f"{short} of {len(records)} prompts have fewer block ids than blocks: the rest is taken as shared by none"
        )
    return ParsedRequests(
        prompt_tokens,
        tokens(records, "output_length", least=0),
        arrival_s,
        session=session,
        after=after,
        delay_s=delay_s,
        prefix=prefix,
        warnings=tuple(warnings),
    )


def _read_qwen(records: RawRecords, options: Options) -> ParsedRequests:
    prompt_tokens = tokens(records, "input_length")
    chats = labels(records, "chat_id")
    first: dict[str | None, str | None] = {}
    for row, (chat, parent) in enumerate(zip(chats, labels(records, "parent_chat_id"), strict=True)):
        if chat is None or chat in first:
            records.refuse(row, "chat_id", "an id of its own for every row")
        # A parent that the file does not hold, as in an excerpt, still names the conversation.
        first[chat] = chat if parent in (None, "-1") else first.get(parent, parent)
    block_tokens = options.block_tokens or QWEN_BLOCK_TOKENS
    most = block_counts(prompt_tokens, block_tokens)
    return ParsedRequests(
        prompt_tokens,
        tokens(records, "output_length", least=0),
        times(records, "timestamp", "s", options.time_unit),
        request_id=chats,
        session=[first[chat] for chat in chats],
        prefix=read_prefix_blocks(records, "hash_ids", most, most, block_tokens),
    )


_LENGTHS = fields("input_length", "output_length")

FORMATS = (
    Format(
        "mooncake",
        (
            _LENGTHS | {"timestamp", "hash_ids"},
            _LENGTHS | {"session_id"},
            # GuideLLM's rows, but for the session.
            _LENGTHS | {"session_id", "timestamp"},
        ),
        fields("timestamp", "delay", "hash_ids", "session_id"),
        _read_mooncake,
    ),
    Format(
        "qwen_bailian",
        (_LENGTHS | {"chat_id", "parent_chat_id", "timestamp"},),
        fields("hash_ids", "type", "turn"),
        _read_qwen,
    ),
)
