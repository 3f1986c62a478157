"""llm-d's router (the endpoint picker of the Gateway API inference extension) with its default configuration.

Follows llm-d/llm-d-router (main, 2026): `pkg/epp/config/loader/defaults.go` (commit 0b59e4e) weighs three scorers,

    2 x queue + 2 x (1 - KV use) + 3 x prefix,

and takes the highest sum, ties at random (`picker/maxscore`). *Queue*: 1 for the fewest waiting requests, 0 for the
most, linear in between, 1 where all are equal. *Prefix*: the share of the prompt's leading blocks that the instance was
sent before, of 131,072 tokens at most, by an LRU per instance as large as its KV cache (`approximateprefix`,
`autoTune`, commit 56cd7ac). Metrics are scraped every 50 ms, and nothing is added for what was sent since.

`context-length-aware` (commit 00e706e) is a fourth scorer, which users add, here with the default weight of 1: an
instance whose label has the prompt's length in range scores 0.3 to 1, the more the narrower the range and the more room
is left in it; any other below 0.3, the less the further away. What the labels are is up to users: here the ranges of
L4's plan, each stage's for its instances. An instance that joins has no label, and scores 0.5.

Departures: prefix blocks are the trace's, not of 16 tokens; of a prompt the tail is forgotten first.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from l4sim.policies.books.block_lru import BlockLRU
from l4sim.policies.views import InstanceView, RequestView

SCRAPED_S = 0.05
"""`refresh-metrics-interval`."""
_QUEUE, _KV, _PREFIX, _LENGTH = 2.0, 2.0, 3.0, 1.0
_MOST_PREFIX_TOKENS = 131_072

FloatArray = NDArray[np.float64]


def range_score(prompt_tokens: int, lowest: int, highest: int) -> float:
    """How well a range of lengths suits a prompt (`calculateRangeScore`); both ends are in the range."""
    if lowest <= prompt_tokens <= highest:
        width = highest - lowest
        if width == 0:
            return 1.0
        raw = 0.7 / (1.0 + width / 10_000.0) + 0.3 * (highest - prompt_tokens) / width
        return 0.3 + 0.7 * raw
    away = prompt_tokens - highest if prompt_tokens > highest else lowest - prompt_tokens
    return 0.3 / (1.0 + away / 1000.0)


class LLMD:
    """The highest weighted score."""

    def __init__(
        self,
        prefix_id_tokens: int,
        kv_tokens: int,
        seed: int,
        *,
        ranges: Mapping[int, tuple[int, int]] | None = None,
        view_age_s: float = SCRAPED_S,
    ) -> None:
        """``kv_tokens``: of an instance. ``ranges``: labels by instance number, for `context-length-aware`."""
        self.view_age_s = view_age_s
        self._id_tokens = prefix_id_tokens
        self._sent = BlockLRU(max(kv_tokens // prefix_id_tokens, 1))
        self._ends = sorted(set(ranges.values())) if ranges else []
        """The ranges that there are."""
        self._labels = {} if ranges is None else {number: self._ends.index(ends) for number, ends in ranges.items()}
        """By instance number, which of them it is labelled with."""
        self._random = random.Random(seed)
        self._loads: FloatArray | None = None
        """What queue and KV use score, as last published; None: to be read."""

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return a position of the highest score."""
        if self._loads is None or len(self._loads) != len(instances):
            self._loads = _load_scores(instances)
        scores = self._loads.copy()
        ids = request.prefix_ids[: _MOST_PREFIX_TOKENS // self._id_tokens]
        blocks = max(min(request.prompt_tokens, _MOST_PREFIX_TOKENS) / self._id_tokens, 1.0)
        depths = self._sent.depths(ids)
        if depths:
            position = {view.instance: n for n, view in enumerate(instances)}
            for instance, depth in depths.items():
                if instance in position:
                    scores[position[instance]] += _PREFIX * depth / blocks
        if self._ends:
            scores += _LENGTH * self._length_scores(request.prompt_tokens, instances)
        best = np.flatnonzero(scores == scores.max())
        chosen = int(best[0] if len(best) == 1 else self._random.choice(best.tolist()))
        self._sent.use(instances[chosen].instance, reversed(ids))
        return chosen

    def _length_scores(self, prompt_tokens: int, instances: Sequence[InstanceView]) -> FloatArray:
        of_label = np.array([*(range_score(prompt_tokens, *ends) for ends in self._ends), 0.5])
        scores: FloatArray = of_label[[self._labels.get(view.instance, -1) for view in instances]]
        return scores

    def published(self, now_s: float) -> None:
        """Metrics have been scraped."""
        self._loads = None

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone, and what they were sent with them, or joined."""
        self._sent.keep_only(numbers)
        self._loads = None


def _load_scores(instances: Sequence[InstanceView]) -> FloatArray:
    waiting = np.array([view.waiting for view in instances], dtype=np.float64)
    kv_free = np.array([view.kv_blocks_free / view.kv_blocks_total for view in instances])
    most, least = waiting.max(), waiting.min()
    queue = (most - waiting) / (most - least) if most > least else np.ones(len(waiting))
    scores: FloatArray = _QUEUE * queue + _KV * kv_free
    return scores
