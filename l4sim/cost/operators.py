"""One model's operators as they were measured, in place of models of them."""

from __future__ import annotations

from dataclasses import dataclass

from l4sim.cost.curve import OverSequences, OverTokens
from l4sim.json_files import Count
from l4sim.specs.model import Model


@dataclass(frozen=True, slots=True)
class MeasuredOperators:
    """Everything but attention and communication of one model on one rank."""

    hidden: Count
    intermediate: Count
    heads: Count
    """Of the whole model, as are the other sizes."""
    kv_heads: Count
    head_dim: Count
    vocab: Count
    tensor_parallel: Count
    layer: OverTokens
    """Seconds of one layer over tokens."""
    once: OverTokens
    """Seconds of embedding and final norm over tokens."""
    sampled: OverSequences
    """Seconds of lm_head and sampler over sampled sequences."""

    def fits(self, model: Model, tensor_parallel: int) -> bool:
        """Whether these are that model's: all sizes but the number of layers agree."""
        sizes = ("hidden", "intermediate", "heads", "kv_heads", "head_dim", "vocab")
        return self.tensor_parallel == tensor_parallel and all(
            getattr(self, size) == getattr(model, size) for size in sizes
        )
