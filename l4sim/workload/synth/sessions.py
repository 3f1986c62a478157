"""Multi-turn sessions: each prompt repeats the conversation so far, and each turn waits for the previous answer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from l4sim.workload.synth.checks import require
from l4sim.workload.trace import FloatArray, IntArray, PrefixBlocks, Trace


@dataclass(frozen=True, slots=True)
class Sessions:
    """How requests form sessions: geometric numbers of turns, exponential think times (both ours)."""

    turns_mean: float
    """Mean turns per session, >= 1."""
    think_s_mean: float
    """Mean seconds from the end of an answer to the next turn's arrival, >= 0."""
    system_tokens: int = 0
    """A system prompt that opens every prompt of every session."""
    block_tokens: int = 512
    """Tokens per prefix-block id."""

    def __post_init__(self) -> None:
        require(1 <= self.turns_mean < math.inf, f"sessions: mean turns must be >= 1, not {self.turns_mean}")
        require(0 <= self.think_s_mean < math.inf, f"sessions: mean think time must be >= 0 s, not {self.think_s_mean}")
        require(self.system_tokens >= 0, f"sessions: system prompt must have >= 0 tokens, not {self.system_tokens}")
        require(self.block_tokens >= 1, f"sessions: block size must be >= 1 token, not {self.block_tokens}")

    def turns(self, rng: np.random.Generator, sessions: int) -> IntArray:
        """Turns of each of so many sessions, shape ``[sessions]``, >= 1."""
        return rng.geometric(1 / self.turns_mean, sessions)

    def turns_of_requests(self, rng: np.random.Generator, requests: int) -> IntArray:
        """Turns of as many sessions as hold ``requests`` turns in all; the last session is cut to fit."""
        turns = self.turns(rng, requests)
        ends = turns.cumsum()
        last = int(np.searchsorted(ends, requests))
        turns = turns[: last + 1].copy()
        turns[last] -= ends[last] - requests
        return turns

    def think_s(self, rng: np.random.Generator, requests: int) -> FloatArray:
        """Think time before each turn, seconds, shape ``[requests]``."""
        return rng.standard_exponential(requests) * self.think_s_mean


def converse(
    name: str,
    sessions: Sessions,
    starts_s: FloatArray,
    turns: IntArray,
    user_tokens: IntArray,
    output_tokens: IntArray,
    think_s: FloatArray,
) -> Trace:
    """Build the trace of sessions; the rows of a session follow each other.

    A prompt is the system prompt, all earlier user tokens and answers of its session, and its own user tokens. A
    session's first turn arrives at its start (open-loop), every other one ``think_s`` after the previous answer
    (closed-loop). ``starts_s`` and ``turns`` have shape ``[sessions]``, the rest ``[turns.sum()]``.
    """
    rows = len(user_tokens)
    first = np.zeros(rows, dtype=bool)
    first_rows = turns.cumsum() - turns
    first[first_rows] = True

    said = (user_tokens + output_tokens).cumsum() - output_tokens
    before_session = said[first_rows] - user_tokens[first_rows]
    prompt_tokens = said - np.repeat(before_session, turns) + sessions.system_tokens

    arrival_s = np.full(rows, np.nan)
    arrival_s[first_rows] = starts_s
    return Trace(
        name=name,
        request_id=tuple(map(str, range(rows))),
        arrival_s=arrival_s,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        session=np.repeat(np.arange(len(turns)), turns),
        after=np.where(first, -1, np.arange(rows) - 1),
        delay_s=np.where(first, np.nan, think_s),
        prefix=_prefix_blocks(sessions, turns, prompt_tokens),
    )


def _prefix_blocks(sessions: Sessions, turns: IntArray, prompt_tokens: IntArray) -> PrefixBlocks:
    """Ids of the blocks of growing prompts.

    Full blocks of the system prompt have the same ids everywhere, other full blocks the same ids throughout their
    session. A block that a prompt fills only in part has an id of its own, as in Mooncake's traces: the next turn
    fills it with other tokens, so it is not shared.
    """
    block = sessions.block_tokens
    shared = sessions.system_tokens // block
    full = prompt_tokens // block
    blocks = -(-prompt_tokens // block)
    offsets = np.concatenate(([0], blocks.cumsum()))

    own_blocks = full[turns.cumsum() - 1] - shared
    session_base = shared + own_blocks.cumsum() - own_blocks
    row_base = np.repeat(session_base, turns)
    partial_id = shared + own_blocks.sum() + np.arange(len(prompt_tokens))

    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], blocks)
    own_id = np.repeat(row_base - shared, blocks) + position
    ids = np.where(position < shared, position, own_id)
    ids = np.where(position < np.repeat(full, blocks), ids, np.repeat(partial_id, blocks))
    return PrefixBlocks(ids=ids, offsets=offsets, block_tokens=block)
