"""Seconds of one iteration: tables over tokens and sequences, and the attention of the batch as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from l4sim.batch import Batch
from l4sim.cost.model import AttentionModel

STEADY_GROWTH = 1 / 16
"""Up to this growth of a batch's KV, one evaluation in the middle stands for a segment: attention steps with every KV
block that a request begins, and two samples of the stairs tell no more of their slope (`benchmarks.fast_forward`)."""


@dataclass(frozen=True, slots=True)
class IterationCost:
    """A ``CostModel``: list lookups for everything but attention (the hot path of every simulation)."""

    attention: AttentionModel
    """Of one layer; where layers differ, of all of them (`LayersAttention`)."""
    repeats: int
    """How many times an iteration runs that: the number of layers; where they differ, once."""
    decodes_s: Sequence[float]
    """By requests of a batch that decodes only: everything but attention, the host's part included. A list, for fast
    lookup, as the others are."""
    tokens_s: Sequence[float]
    """By tokens of a batch with prompts: all layers without attention, all-reduces, embedding, the host's part."""
    sampled_s: Sequence[float]
    """By sampled sequences of a batch with prompts: lm_head, what gathers its logits, the host's part."""

    def iteration_s(self, batch: Batch) -> float:
        """Seconds of one iteration, host overhead included."""
        attention_s = self.repeats * self.attention.attention_s(batch)
        if not batch.prefills:
            return self.decodes_s[len(batch.decode_context_tokens)] + attention_s
        return self.tokens_s[batch.tokens] + self.sampled_s[batch.sampled] + attention_s

    def decode_segment_s(self, batch: Batch, iterations: int) -> tuple[float, float]:
        """Seconds of the first and the last of ``iterations`` decode iterations in a row."""
        rows = len(batch.decode_context_tokens)
        fixed_s = self.decodes_s[rows]
        if (iterations - 1) * rows <= STEADY_GROWTH * batch.decode_context_sum:
            middle_s = fixed_s + self.repeats * self.attention.attention_s(grown(batch, (iterations - 1) // 2))
            return middle_s, middle_s
        first_s = fixed_s + self.repeats * self.attention.attention_s(batch)
        return first_s, fixed_s + self.repeats * self.attention.attention_s(grown(batch, iterations - 1))


@dataclass(frozen=True, slots=True)
class LayersAttention:
    """An ``AttentionModel`` of several layers that differ: the sum over kinds."""

    kinds: tuple[tuple[int, AttentionModel], ...]
    """Numbers of layers, and the attention of one of them."""

    def attention_s(self, batch: Batch) -> float:
        """Seconds that the attention of all these layers takes for this batch."""
        return sum([layers * attention.attention_s(batch) for layers, attention in self.kinds])


def grown(batch: Batch, tokens: int) -> Batch:
    """A decode-only batch after so many further iterations: every context longer by ``tokens``."""
    contexts = batch.decode_context_tokens + tokens
    return Batch(contexts, batch.decode_context_sum + tokens * len(contexts))
