"""Executes nothing: cost models know the seconds of a step."""

from __future__ import annotations

from collections.abc import Sequence

from l4sim.cost.model import CostModel
from l4sim.engine.blocks import BlockPool
from l4sim.engine.protocol import Step
from l4sim.engine.request import Request


class Modelled:
    """An `Executor` that carries nothing out: a cost model knows the seconds, and KV is counted only."""

    measured = False

    def __init__(self, costs: Sequence[CostModel]) -> None:
        """``costs``: by the instances' numbers; may grow as instances join."""
        self._costs = costs

    def pool(self, instance: int) -> BlockPool | None:
        """None: blocks are counts."""
        return None

    def execute(self, instance: int, step: Step, decoding: Sequence[Request]) -> tuple[float, float]:
        """The cost model's seconds."""
        cost = self._costs[instance]
        if step.iterations == 1:
            seconds = cost.iteration_s(step.batch)
            return seconds, seconds
        return cost.decode_segment_s(step.batch, step.iterations)

    def copy(self, request: Request, source: int, destination: int, start_tokens: int, end_tokens: int) -> None:
        """Nothing to copy."""

    def discard(self, request: int, destination: int) -> None:
        """Nothing to forget."""
