"""The middle of decide, execute, account: what carries out the steps and KV copies of a cluster's instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from l4sim.cost.model import CostModel
from l4sim.engine.blocks import BlockPool
from l4sim.engine.instance import Step
from l4sim.engine.request import Request


class ExecutionError(Exception):
    """An executor cannot go on; the run ends here, and what it has recorded is kept."""


class Executor(Protocol):
    """Carries out what instances do, or knows how long it would take; instances go by their numbers."""

    def pool(self, instance: int) -> BlockPool | None:
        """The KV blocks of an instance, where they are more than counts; None: the engine makes its own."""
        ...

    def execute(self, instance: int, step: Step, decoding: Sequence[Request]) -> tuple[float, float]:
        """Carry out a step; returns the seconds of its first and of its last iteration.

        ``decoding`` are the requests of the batch's decode contexts, in their order. Between the two times the
        simulator interpolates linearly. Steps of several iterations come only with `Rules.fast_forward`.
        """
        ...

    def copy(self, request: Request, source: int, destination: int, start_tokens: int, end_tokens: int) -> None:
        """Copy the KV of a request's tokens ``[start, end)``; called when the modelled transfer of them has ended."""
        ...

    def discard(self, request: int, destination: int) -> None:
        """Forget what was copied of a request, by its number, whose migration has been aborted."""
        ...


class Modelled:
    """Nothing is carried out: a cost model knows the seconds, and KV is counted only."""

    def __init__(self, cost: CostModel) -> None:
        self._cost = cost

    def pool(self, instance: int) -> BlockPool | None:
        """None: blocks are counts."""
        return None

    def execute(self, instance: int, step: Step, decoding: Sequence[Request]) -> tuple[float, float]:
        """The cost model's seconds."""
        if step.iterations == 1:
            seconds = self._cost.iteration_s(step.batch)
            return seconds, seconds
        return self._cost.decode_segment_s(step.batch, step.iterations)

    def copy(self, request: Request, source: int, destination: int, start_tokens: int, end_tokens: int) -> None:
        """Nothing to copy."""

    def discard(self, request: int, destination: int) -> None:
        """Nothing to forget."""
