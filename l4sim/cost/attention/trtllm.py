"""Seconds of TensorRT-LLM's kernels in FlashInfer (trtllm-gen), as vLLM and SGLang call them on Blackwell.

Their sources are not public. Decodes and prompts are two launches; how each splits a batch is taken to be as FA3 does,
and what batches of equal lengths take is measured: `l4sim.cost.attention.anchored` holds it to a profile's tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from l4sim.batch import Batch
from l4sim.cost.attention.fa3 import FA3Attention, FA3Coefficients, fa3_attention
from l4sim.cost.attention.kernel import Kernel
from l4sim.cost.attention.shape import Shape


@dataclass(frozen=True, slots=True)
class TwoLaunches:
    """An ``AttentionModel`` of decodes and prompts in launches of their own."""

    one: FA3Attention

    def attention_s(self, batch: Batch) -> float:
        """Seconds of one layer."""
        if not batch.prefills or not len(batch.decode_context_tokens):
            return self.one.attention_s(batch)
        decodes = Batch(batch.decode_context_tokens, batch.decode_context_sum)
        prompts = Batch(np.empty(0, dtype=np.int64), 0, batch.prefills)
        return self.one.attention_s(decodes) + self.one.attention_s(prompts)


def trtllm_attention(shape: Shape, c: FA3Coefficients) -> TwoLaunches:
    """The time model for one rank's attention."""
    return TwoLaunches(fa3_attention(shape, c))


KERNEL = Kernel("trtllm-gen", FA3Coefficients, trtllm_attention)
