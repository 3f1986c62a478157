"""One model's operators as they were measured, in place of models of them."""

from __future__ import annotations

from dataclasses import dataclass

from l4sim.cost.curve import Curve
from l4sim.specs.model import Model


@dataclass(frozen=True, slots=True)
class MeasuredOperators:
    """Everything but attention and communication of one model on one rank."""

    hidden: int
    intermediate: int
    heads: int
    """Of the whole model, as are the other sizes."""
    kv_heads: int
    head_dim: int
    vocab: int
    tensor_parallel: int
    layer: Curve
    """Seconds of one layer over tokens."""
    once: Curve
    """Seconds of embedding and final norm over tokens."""
    sampled: Curve
    """Seconds of lm_head and sampler over sampled sequences."""

    def fits(self, model: Model, tensor_parallel: int) -> bool:
        """Whether these are that model's: all sizes but the number of layers agree."""
        sizes = ("hidden", "intermediate", "heads", "kv_heads", "head_dim", "vocab")
        return self.tensor_parallel == tensor_parallel and all(
            getattr(self, size) == getattr(model, size) for size in sizes
        )
