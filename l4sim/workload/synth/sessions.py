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
    """Tokens per prefix-block id where ids are written, or seen by routers; what is shared is known to the token."""

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
        prefix=_prefix(sessions, turns, prompt_tokens + output_tokens),
    )


def _prefix(sessions: Sessions, turns: IntArray, lengths: IntArray) -> PrefixBlocks:
    """Two blocks for each request: the system prompt, which is everybody's, and its session's conversation so far.

    ``lengths`` are of prompt and answer, which the next turn repeats.
    """
    rows = len(lengths)
    conversation = np.repeat(np.arange(len(turns)), turns)
    if not sessions.system_tokens:
        return PrefixBlocks(conversation, np.arange(rows + 1), sessions.block_tokens, lengths)
    ids = np.stack((np.zeros(rows, dtype=np.int64), 1 + conversation), axis=1).ravel()
    ends = np.stack((np.full(rows, sessions.system_tokens), lengths), axis=1).ravel()
    return PrefixBlocks(ids, 2 * np.arange(rows + 1), sessions.block_tokens, ends)
