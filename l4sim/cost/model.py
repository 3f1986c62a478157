"""What a cost model is: it takes a batch and gives seconds."""

from __future__ import annotations

from typing import Protocol

from l4sim.batch import Batch


class AttentionModel(Protocol):
    """Seconds of one layer's attention."""

    def attention_s(self, batch: Batch) -> float:
        """Seconds that the attention of one layer takes for this batch."""
        ...


class CostModel(Protocol):
    """Seconds of one iteration on one instance."""

    def iteration_s(self, batch: Batch) -> float:
        """Seconds from the start of an iteration to its sampled tokens, host overhead included; > 0."""
        ...

    def decode_segment_s(self, batch: Batch, iterations: int) -> tuple[float, float]:
        """Seconds of the first and of the last of ``iterations`` decode-only iterations in a row.

        ``batch`` is the first iteration's; every context grows by one token per iteration. Between the two the
        simulator interpolates linearly, which is exact for costs that are affine in the context lengths.
        """
        ...
