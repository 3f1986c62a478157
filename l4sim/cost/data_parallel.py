"""Seconds of an iteration whose attention is data-parallel: every rank waits for the slowest."""

from __future__ import annotations

from dataclasses import dataclass

from l4sim.batch import Batch, Prefill
from l4sim.cost.iteration import STEADY_GROWTH, IterationCost, grown


@dataclass(frozen=True, slots=True)
class DataParallelCost:
    """A ``CostModel``: the batch's requests are dealt to ranks, which run every layer in step.

    A layer's experts need the tokens of all ranks, and pad them to as many as the rank with most has: a step takes what
    that rank's linear layers take, and the longest attention of any. Source: vLLM 0.32, `DPMetadata`,
    `coordinate_batch_across_dp`; ours in that the slowest attention of a whole iteration counts, not of each layer.
    """

    rank: IterationCost
    """One rank's; its lists are by the tokens and sequences of the rank that has most."""
    ranks: int

    def iteration_s(self, batch: Batch) -> float:
        """Seconds of one iteration, host overhead included."""
        shares, cost = deal(batch, self.ranks), self.rank
        attention_s = cost.repeats * max([cost.attention.attention_s(share) for share in shares])
        if not batch.prefills:
            return cost.decodes_s[max([len(share.decode_context_tokens) for share in shares])] + attention_s
        tokens, sampled = max([share.tokens for share in shares]), max([share.sampled for share in shares])
        return cost.tokens_s[tokens] + cost.sampled_s[sampled] + attention_s

    def decode_segment_s(self, batch: Batch, iterations: int) -> tuple[float, float]:
        """Seconds of the first and the last of ``iterations`` decode iterations in a row."""
        rows = len(batch.decode_context_tokens)
        if (iterations - 1) * rows <= STEADY_GROWTH * batch.decode_context_sum:
            middle_s = self.iteration_s(grown(batch, (iterations - 1) // 2))
            return middle_s, middle_s
        return self.iteration_s(batch), self.iteration_s(grown(batch, iterations - 1))


def deal(batch: Batch, ranks: int) -> list[Batch]:
    """A batch's requests in turn to ranks, and each chunk of a prompt to the one with the fewest tokens so far."""
    chunks: list[list[Prefill]] = [[] for _ in range(ranks)]
    contexts = [batch.decode_context_tokens[rank::ranks] for rank in range(ranks)]
    tokens = [len(each) for each in contexts]
    for chunk in batch.prefills:
        least = tokens.index(min(tokens))
        chunks[least].append(chunk)
        tokens[least] += chunk.chunk_tokens
    return [Batch(own, int(own.sum()), tuple(given)) for own, given in zip(contexts, chunks, strict=True)]
