"""What the prefix caches of a stage's instances will hold.

Ours. A prompt repeats a prefix that was last used some interval ago, and before that once for every earlier turn. A
router that follows prefixes sends the prompt to the instance of the last use. Under a router that does not, the prompt
goes to one of m instances, drawn anew each time. That instance holds the prefix if one of the last k uses was there, k
being how many fit into the time for which the cache keeps what is not used (Che's approximation, IEEE JSAC 20 (2002)):
with probability 1 - (1 - 1/m)^k. The further back that use is, the shorter the prefix was then.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from l4sim.workload.prefix_runs import ends_of, merged
from l4sim.workload.trace import PrefixBlocks

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_INTERVALS = 8
_TURNS = (1.5, 3.5, 10.5)
"""Prompts with reuse are put into classes by quantiles of the interval, and by turns between these bounds."""


@dataclass(frozen=True, slots=True)
class PrefixUses:
    """Per prompt, shape ``[n]``, where its longest known prefix was used before."""

    tokens: IntArray
    """Prompt tokens that an earlier prompt had; 0 where there is none, and all else is then meaningless."""
    earlier: IntArray
    """Row of the latest earlier prompt that has them all."""
    turns: IntArray
    """Earlier prompts with at least half of them."""
    growth: FloatArray
    """By what share each earlier use was shorter."""


@dataclass(frozen=True, slots=True)
class Reuse:
    """Reused prompt tokens by class (``c``) and buckets (``b``)."""

    interval_s: FloatArray
    """Since the prefix was last used; shape ``[c]``."""
    turns: FloatArray
    """Earlier uses; shape ``[c]``."""
    growth: FloatArray
    """Shape ``[c]``."""
    tokens_per_s: FloatArray
    """Shape ``[c, b, b]``: by the buckets of the earlier prompt and of the prompt itself."""
    followed: bool
    """Whether the router sends prompts where their prefix is, into whichever stage."""

    def within(self, ranges: tuple[tuple[int, int], ...]) -> FloatArray:
        """Tokens/s of prompts in each range whose earlier prompt was there too, or anywhere if prefixes are followed.

        Shape ``[p, c]``.
        """
        before = np.pad(self.tokens_per_s, ((0, 0), (1, 0), (1, 0))).cumsum(axis=1).cumsum(axis=2)
        low, high = np.array(ranges).T
        inside = before[:, high, high] - before[:, low, high] - before[:, high, low] + before[:, low, low]
        if self.followed:
            inside = before[:, -1, high] - before[:, -1, low]
        return np.asarray(np.maximum(inside, 0.0).T)

    def held_tokens_per_s(self, within: FloatArray, instances: FloatArray, kept_s: FloatArray) -> FloatArray:
        """Tokens/s that the caches hold; shape ``[p, M]``.

        ``within`` is what `within` returned, ``instances`` has the shape ``[1, M]``, ``kept_s`` is the time that caches
        keep what is not used, ``[p, M]``.
        """
        held = np.zeros_like(kept_s)
        for c, (interval_s, turns, growth) in enumerate(zip(self.interval_s, self.turns, self.growth, strict=True)):
            uses = np.minimum(kept_s / interval_s, turns)
            uses = np.where(uses >= 1, uses, 0.0)
            if self.followed:
                held += within[:, c, None] * (uses > 0)
                continue
            found = 1 - (1 - 1 / instances) ** uses
            back = np.minimum(instances - 1, np.maximum(uses - 1, 0) / 2)
            held += within[:, c, None] * found * np.maximum(1 - growth * back, 0.0)
        return held


def prefix_uses(prompt_tokens: IntArray, prefix: PrefixBlocks) -> PrefixUses:
    """Where the prefix of each prompt of a trace was used before, answers included."""
    runs = merged(prefix, prompt_tokens)
    ids, ends = runs.ids.tolist(), ends_of(runs, prompt_tokens).tolist()
    rows = len(prompt_tokens)
    tokens, latest, turns = (np.zeros(rows, dtype=np.int64) for _ in range(3))
    growth = np.zeros(rows)
    used: dict[int, list[tuple[int, int]]] = {}
    """Of each run the rows that have it, each with where it leaves it."""
    reach: dict[int, list[int]] = {}
    """These ends alone, sorted."""
    for row, (first, last) in enumerate(pairwise(runs.offsets.tolist())):
        places = range(first, last)
        known = 0
        for place in places:
            known = min(reach.get(ids[place], [known])[-1], ends[place])
            if known < ends[place]:
                break
        known = min(known, int(prompt_tokens[row]))
        latest[row] = -1
        if known:
            holding = used[ids[next(place for place in places if ends[place] >= known)]]
            latest[row] = next(earlier for earlier, end in reversed(holding) if end >= known)
            half = (known + 1) // 2
            reached = reach[ids[next(place for place in places if ends[place] >= half)]]
            turns[row] = len(reached) - bisect_left(reached, half)
            growth[row] = max(1 - tokens[latest[row]] / known, 0)
        tokens[row] = known
        for place in places:
            used.setdefault(ids[place], []).append((row, ends[place]))
            insort(reach.setdefault(ids[place], []), ends[place])
    # The last token is always computed, so that there is something to sample from.
    return PrefixUses(np.minimum(tokens, prompt_tokens - 1), latest, turns, growth)


def measure_reuse(
    uses: PrefixUses,
    interval_s: FloatArray,
    prompt_tokens: IntArray,
    rates_per_s: FloatArray,
    edges_tokens: IntArray,
    *,
    followed: bool = False,
) -> Reuse | None:
    """The reuse of a sample of prompts, each of which arrives at its own rate; None if there is none.

    Shapes ``[n]``; ``interval_s`` is the time since the earlier prompt of each came; ``followed`` says whether the
    router sends prompts where their prefix is.
    """
    rows = np.flatnonzero((uses.tokens > 0) & (rates_per_s > 0) & (prompt_tokens <= edges_tokens[-1]))
    if not len(rows):
        return None
    tokens = uses.tokens[rows] * rates_per_s[rows]
    interval = np.maximum(interval_s[rows], 1e-3)
    quantiles = np.quantile(interval, np.arange(1, _INTERVALS) / _INTERVALS)
    kind = np.searchsorted(quantiles, interval) * (len(_TURNS) + 1) + np.searchsorted(_TURNS, uses.turns[rows])
    _, kind = np.unique(kind, return_inverse=True)
    kinds, buckets = int(kind.max()) + 1, len(edges_tokens) - 1
    bucket = np.minimum(np.searchsorted(edges_tokens, prompt_tokens, side="right") - 1, buckets - 1)
    by_bucket = np.zeros((kinds, buckets, buckets))
    np.add.at(by_bucket, (kind, bucket[uses.earlier[rows]], bucket[rows]), tokens)

    def mean(values: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(kind, values * tokens, kinds) / np.bincount(kind, tokens, kinds))

    return Reuse(
        mean(interval), mean(uses.turns[rows].astype(np.float64)), mean(uses.growth[rows]), by_bucket, followed
    )
