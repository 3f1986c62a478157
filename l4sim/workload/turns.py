"""Sessions' turns joined to the token: what block ids leave open where a prompt ends inside a block.

A turn's prompt repeats the one before it and its answer, then goes on. Ids tell that to the last block that both fill.
That the rest of the earlier prompt, and its answer, are the same too is taken for granted (ours) where nothing speaks
against it: the session's later turn agrees in all blocks that the earlier prompt fills, its prompt is long enough to
hold the earlier prompt and answer, and its ids cover them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np

from l4sim.workload.prefix_runs import merged, starts_of
from l4sim.workload.trace import PrefixBlocks, Trace

_LOOKED_BACK = 16
"""Turns of a session among which the one is looked for that a turn goes on from (ours): subagents come between."""


class _Tree:
    """Blocks by what they follow; a request is a block that it ends in, and a length."""

    def __init__(self, runs: PrefixBlocks) -> None:
        assert runs.ends is not None
        ids, starts = runs.ids.tolist(), starts_of(runs.offsets, runs.ends).tolist()
        size = max(ids, default=-1) + 1
        self._parent = [-1] * size
        self._start = [0] * size
        self._children: dict[int, set[int]] = defaultdict(set)
        self.leaf: list[int] = []
        self.length: list[int] = []
        ends = runs.ends.tolist()
        for first, last in pairwise(runs.offsets.tolist()):
            before = -1
            for place in range(first, last):
                self._parent[ids[place]] = before
                self._children[before].add(ids[place])
                self._start[ids[place]] = starts[place]
                before = ids[place]
            self.leaf.append(before)
            self.length.append(ends[last - 1] if last > first else 0)

    def at(self, row: int, token: int) -> int:
        """The block of a request that holds one of its tokens; -1 for none."""
        if not 0 <= token < self.length[row]:
            return -1
        node = self.leaf[row]
        # A block that was moved behind another may begin behind what a request has of it.
        while self._start[node] > token:
            node = self._parent[node]
        return node

    def common(self, row: int, later: int) -> int:
        """How many tokens two requests begin with alike."""
        starts, parent = self._start, self._parent
        end, later_end = self.length[row], self.length[later]
        node, other = self.at(row, end - 1), self.at(later, later_end - 1)
        while node != other:
            if node < 0 or other < 0:
                return 0
            if starts[node] >= starts[other]:
                end, node = starts[node], parent[node]
            else:
                later_end, other = starts[other], parent[other]
        return min(end, later_end)

    def join(self, row: int, later: int, tokens: int, same: int) -> None:
        """Let a row have its first ``tokens`` in common with ``later``, not the first ``same`` alone."""
        own, others = self.at(row, same), self.at(later, same)
        if own >= 0 and own != others:
            behind = min(self.length[row], tokens)
            if self._start[own] == same:
                self._move(own, behind, later)
            else:
                self._move(others, behind, row)
        if tokens > self.length[row]:
            self.leaf[row], self.length[row] = self.at(later, tokens - 1), tokens

    def _move(self, block: int, start: int, row: int) -> None:
        """Let a block begin at a later token: those before it, and what branches off there, are a request's."""
        self._children[self._parent[block]].remove(block)
        branches = [child for child in self._children[block] if self._start[child] <= start]
        self._start[block] = start
        for moved in (block, *branches):
            self._parent[moved] = parent = self.at(row, self._start[moved] - 1)
            self._children[parent].add(moved)
        self._children[block].difference_update(branches)

    def path(self, row: int) -> list[tuple[int, int]]:
        """The blocks that a request goes through, from its first token on, each with where it leaves it."""
        found = []
        end = self.length[row]
        node = self.at(row, end - 1)
        while node >= 0:
            found.append((node, end))
            node, end = self._parent[node], self._start[node]
        found.reverse()
        return found

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
        full = prompts[row] // block * block
        if prompts[row] >= prompts[later] or known[row] < full:
            return -1
        same = tree.common(row, later)
        return same if same >= full else -1

    guessed = 0
    for later, before in enumerate(_turns_before(trace)):
        row, same = -1, block - 1
        for turn in before:
            if prompts[turn] > same and (alike := repeats(later, turn)) > same:
                row, same = turn, alike
        if row < 0 and before and repeats(later, before[0]) >= 0:
            # A prompt that fills no block: that one comes after the other is all that there is to go by.
            row, same = before[0], repeats(later, before[0])
            guessed += 1
        if row < 0:
            continue
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
