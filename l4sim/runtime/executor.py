"""The middle of decide, execute, account: what carries out the steps and KV copies of a cluster's instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from l4sim.engine.blocks import BlockPool
from l4sim.engine.protocol import Step
from l4sim.engine.request import Request


class ExecutionError(Exception):
    """An executor cannot go on; the run ends here, and what it has recorded is kept."""


class Executor(Protocol):
    """Carries out what instances do, or knows how long it would take; instances go by their numbers."""

    @property
    def measured(self) -> bool:
        """Whether its seconds were measured, so that they hold already what a migration costs iterations beside it."""
        ...

    def pool(self, instance: int) -> BlockPool | None:
        """The KV blocks of an instance, where they are more than counts; None: the engine makes its own."""
        ...

    def execute(self, instance: int, step: Step, decoding: Sequence[Request]) -> tuple[float, float]:
        """Carry out a step; returns the seconds of its first and of its last iteration.

        ``decoding`` are the requests of the batch's decode contexts, in their order. Between the two times the server
        interpolates linearly. Steps of several iterations come only in simulations that skip over quiet ones.
        """
        ...

    def copy(self, request: Request, source: int, destination: int, start_tokens: int, end_tokens: int) -> None:
        """Copy the KV of a request's tokens ``[start, end)``; called when the modelled transfer of them has ended."""
        ...

    def discard(self, request: int, destination: int) -> None:
        """Forget what was copied of a request, by its number, whose migration has been aborted."""
        ...
