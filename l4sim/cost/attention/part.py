"""What a profile has for one layer's attention, and what it may depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from l4sim.cost.model import AttentionModel
from l4sim.cost.profile import Profile
from l4sim.specs.dtypes import Dtypes


class AttentionPart(NamedTuple):
    """The attention of one layer on one rank."""

    model: AttentionModel
    covers: frozenset[str] = frozenset()
    """Parts (`l4sim.specs.matrix.Matrix.part`) whose products are in its seconds, as in tables of whole modules."""
    measured: bool = True
    """Whether what it rests on was measured on this GPU for layers of these sizes."""


@dataclass(frozen=True, slots=True)
class AttentionSetting:
    """What a kind's seconds may depend on besides the layer."""

    profile: Profile
    hidden: int
    ranks: int
    """That share the layer's heads; the layer given beside is one rank's share already."""
    kernel: str
    """Of the profile's."""
    attention_model: str = "tile"
    """How the batch is seen: ``tile``, ``mean``, ``sum`` or ``skew``."""
    graph_requests: tuple[int, ...] = ()
    """Sizes of the decode batches that are captured as CUDA graphs."""
    graph_tokens: int = 1
    """The context length that they are captured for."""


Builder = Callable[[AttentionSetting, Any, Dtypes], AttentionPart]
