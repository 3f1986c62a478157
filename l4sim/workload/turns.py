"""Sessions' turns joined to the token: what block ids leave open where a prompt ends inside a block.

A turn's prompt repeats the one before it and its answer, then goes on. Ids tell that to the last block that both fill.
That the rest of the earlier prompt, and its answer, are the same too is taken for granted (ours) where nothing speaks
against it: the session's later turn agrees in all blocks that the earlier prompt fills, its prompt is long enough to
hold the earlier prompt and answer, and its ids cover them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from l4sim.workload.prefix_runs import merged, starts_of
from l4sim.workload.trace import PrefixBlocks, Trace

_LOOKED_BACK = 16
"""Turns of a session among which the one is looked for that a turn goes on from (ours): subagents come between."""

Path = list[tuple[int, int]]
"""Blocks that a request goes through, each with where it leaves it, in tokens."""


class _Tree:
    """Blocks by what they follow; a request is a block that it ends in, and a length."""

    def __init__(self, runs: PrefixBlocks) -> None:
        assert runs.ends is not None
        ids, starts = runs.ids.tolist(), starts_of(runs.offsets, runs.ends).tolist()
        size = max(ids, default=-1) + 1
        self._parent = [-1] * size
        self._start = [0] * size
        self.leaf: list[int] = []
        self.length: list[int] = []
        ends = runs.ends.tolist()
        for first, last in pairwise(runs.offsets.tolist()):
            before = -1
            for place in range(first, last):
                self._parent[ids[place]] = before
                self._start[ids[place]] = starts[place]
                before = ids[place]
            self.leaf.append(before)
            self.length.append(ends[last - 1] if last > first else 0)

    def path(self, row: int) -> Path:
        """The blocks of a request from its first token on."""
        found: Path = []
        node, end = self.leaf[row], self.length[row]
        while node >= 0 and end > 0:
            # A block that was moved behind others may begin behind what a request has of it.
            if self._start[node] < end:
                found.append((node, end))
                end = self._start[node]
            node = self._parent[node]
        found.reverse()
        return found

    def join(self, row: int, later: int, tokens: int, same: int) -> None:
        """Let a row have its first ``tokens`` in common with ``later``, not the first ``same`` alone."""
        path, later_path = self.path(row), self.path(later)
        own = next((block for block, end in path if end > same), -1)
        others = next((block for block, end in later_path if end > same), -1)
        if own >= 0 and own != others:
            behind = min(self.length[row], tokens)
            if self._start[own] == same:
                self._parent[own], self._start[own] = others, behind
            else:
                self._parent[others], self._start[others] = own, behind
                later_path = self.path(later)
        self.leaf[row] = next(block for block, end in later_path if end >= tokens)
        self.length[row] = tokens

    def prefix(self, block_tokens: int) -> PrefixBlocks:
        """All requests' blocks."""
        paths = [self.path(row) for row in range(len(self.leaf))]
        offsets = np.concatenate(([0], np.cumsum([len(path) for path in paths])))
        blocks = np.array([block for path in paths for block in path], dtype=np.int64).reshape(-1, 2)
        return PrefixBlocks(blocks[:, 0].copy(), offsets, block_tokens, blocks[:, 1].copy())


def join_turns(trace: Trace) -> Trace:
    """The trace with sessions' turns that share what their ids leave open; the same where it has no ids or sessions."""
    prefix = trace.prefix
    if prefix is None or prefix.ends is not None or (trace.session < 0).all():
        return trace
    tree = _Tree(merged(prefix, trace.prompt_tokens))
    prompts = trace.prompt_tokens.tolist()
    totals = (trace.prompt_tokens + trace.output_tokens).tolist()
    block = prefix.block_tokens
    known = list(tree.length)

    def repeats(later: int, row: int) -> int:
        """How many tokens ``later`` begins with like ``row``; -1 if it does not go on from there."""
        same = common(tree.path(row), tree.path(later))
        full = prompts[row] // block * block
        return same if prompts[row] < prompts[later] and full <= min(same, known[row]) else -1

    guessed = 0
    for later, before in enumerate(_turns_before(trace)):
        row = next((row for row in before if repeats(later, row) >= block), -1)
        if row < 0 and before and repeats(later, before[0]) >= 0:
            # Prompts that fill no block: that one comes after the other is all that there is to go by.
            row = before[0]
            guessed += 1
        if row < 0:
            continue
        same = repeats(later, row)
        tokens = min(totals[row] if totals[row] <= prompts[later] else prompts[row], known[later])
        if same < tree.length[row] > prompts[row] and tokens > (same // block + 1) * block:
            # Another turn, with other blocks, has been taken to hold the answer: this one does not.
            tokens = prompts[row]
        if tokens > same:
            tree.join(row, later, tokens, same)
    warning = (
        f"{guessed} of {len(trace)} prompts are taken to repeat the turn before, which fills no block of {block} "
        "tokens that would tell"
    )
    warnings = (*trace.warnings, warning) if guessed else trace.warnings
    return replace(trace, prefix=tree.prefix(block), warnings=warnings)


def common(one: Path, other: Path) -> int:
    """How many tokens two requests begin with alike."""
    tokens = 0
    for (block, end), (other_block, other_end) in zip(one, other, strict=False):
        if block != other_block:
            break
        tokens = min(end, other_end)
        if end != other_end:
            break
    return tokens


def _turns_before(trace: Trace) -> list[list[int]]:
    """Of each row the turns that it may go on from: the one that it waits for, then its session's last ones."""
    recent: dict[int, list[int]] = {}
    before = []
    for row, (session, after) in enumerate(zip(trace.session.tolist(), trace.after.tolist(), strict=True)):
        turns = recent.setdefault(session, []) if session >= 0 else []
        before.append(([after] if after >= 0 else []) + turns)
        turns.insert(0, row)
        del turns[_LOOKED_BACK:]
    return before
