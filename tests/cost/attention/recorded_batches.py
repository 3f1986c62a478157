"""Batches, and a stand-in for a kernel that tells which it was asked for."""

from __future__ import annotations

import numpy as np

from l4sim.batch import Batch

NONE = np.empty(0, dtype=np.int64)


def decodes(*contexts: int) -> Batch:
    return Batch(np.array(contexts, dtype=np.int64), sum(contexts))


class Recording:
    """An ``AttentionModel`` that takes a second for every token of the longest context."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def attention_s(self, batch: Batch) -> float:
        self.batches.append(batch)
        return float(max(batch.decode_context_tokens, default=0))
