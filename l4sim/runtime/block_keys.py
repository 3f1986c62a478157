"""Names of KV blocks by their content: what vLLM's chained hashes tell of a trace's requests, without the tokens.

A KV block of a request is named by its last token, which stands for all tokens before it. The names of a prefix block
of the trace, or of a run of them, are consecutive numbers, so that a long prompt's are a few ranges.
"""

from __future__ import annotations

from itertools import chain

import numpy as np

from l4sim.workload.prefix_runs import merged, starts_of
from l4sim.workload.trace import PrefixBlocks, Trace


def prefix_id_tokens(trace: Trace, block_tokens: int) -> int:
    """Tokens by which routers compare prompts: about a prefix block of the trace, in whole KV blocks."""
    grain = block_tokens if trace.prefix is None else trace.prefix.block_tokens
    return max(grain // block_tokens, 1) * block_tokens


class BlockKeys:
    """Names the full KV blocks of a trace's requests."""

    def __init__(self, trace: Trace, block_tokens: int) -> None:
        """``block_tokens``: of a KV block, whatever the trace's prefix blocks have."""
        rows = len(trace)
        nothing = PrefixBlocks(np.zeros(0, np.int64), np.zeros(rows + 1, np.int64), block_tokens)
        runs = merged(trace.prefix or nothing, trace.prompt_tokens)
        total = trace.prompt_tokens + trace.output_tokens
        assert runs.ends is not None
        counts = np.diff(runs.offsets)
        ends = np.minimum(runs.ends, np.repeat(total, counts))
        first_block = starts_of(runs.offsets, ends) // block_tokens
        blocks = ends // block_tokens - first_block
        widest = np.zeros(int(runs.ids.max(initial=-1)) + 1, dtype=np.int64)
        np.maximum.at(widest, runs.ids, blocks)
        first_name = np.cumsum(widest) - widest

        known = np.zeros(rows, dtype=np.int64)
        known[counts > 0] = ends[runs.offsets[1:][counts > 0] - 1]
        own = total // block_tokens - known // block_tokens
        self._offsets: list[int] = runs.offsets.tolist()
        self._first: list[int] = first_name[runs.ids].tolist()
        self._blocks: list[int] = blocks.tolist()
        self._own_first: list[int] = (widest.sum() + np.cumsum(own) - own).tolist()
        self._own: list[int] = own.tolist()
        self._known: list[int] = np.minimum(known, trace.prompt_tokens).tolist()
        self._block_tokens = block_tokens
        self.id_tokens = prefix_id_tokens(trace, block_tokens)
        """Tokens that one of `prefix_ids` stands for."""

    def of(self, row: int) -> tuple[range, ...]:
        """The names of all full KV blocks of a row's prompt and answer, as `Request.block_keys` has them."""
        first, own = self._own_first[row], self._own[row]
        answer = (range(first, first + own),) if own else ()
        start, end = self._offsets[row], self._offsets[row + 1]
        if start == end:
            return answer
        spans = zip(self._first[start:end], self._blocks[start:end], strict=True)
        return (*[range(first, first + blocks) for first, blocks in spans if blocks], *answer)

    def prefix_ids(self, row: int) -> tuple[int, ...]:
        """What routers may compare prompts by: a name for each full `id_tokens` that others may have in common."""
        if not self._known[row]:
            return ()
        stride = self.id_tokens // self._block_tokens
        left = self._known[row] // self.id_tokens * stride
        start, end = self._offsets[row], self._offsets[row + 1]
        parts: list[range] = []
        skip = stride - 1
        for first, blocks in zip(self._first[start:end], self._blocks[start:end], strict=True):
            parts.append(range(first + skip, first + min(blocks, left), stride))
            skip = (skip - blocks) % stride
            left -= min(blocks, left)
        return tuple(chain.from_iterable(parts))
