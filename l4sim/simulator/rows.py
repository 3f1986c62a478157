"""What a simulation leaves behind: flat rows of numbers."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass

from l4sim.engine.request import Request

REQUEST_STATUSES = ("finished", "rejected", "failed")


@dataclass(frozen=True, slots=True, eq=False)
class SimulationResult:
    """Rows of the results' tables, as flat arrays of doubles; texts are numbers into the word lists."""

    requests: array[float]
    """The REQUESTS columns, in order of the requests' ends; ``request_id`` is the request's row in the trace."""
    reasons: tuple[str, ...]
    iterations: array[float]
    migrations: array[float]
    end_s: float
    kv_blocks_held: tuple[int, ...]
    """Per instance that is still up, KV blocks held at the end; all zero unless something leaks."""
    messages_sent: int
    """By agents, coordinators included."""
    deaths: tuple[tuple[int, float, int], ...] = ()
    """Instances that have died: which, when, and the requests that had to start over elsewhere."""


def request_row(request: Request, status: str, reason: int) -> tuple[float, ...]:
    """A request's row of `SimulationResult.requests`; ``reason`` is an index into its ``reasons``."""
    first_s, last_s, output = request.first_token_s, request.last_token_s, request.output_tokens
    finished = status == "finished"
    several = output > 1 and finished
    e2e_s = last_s - request.arrival_s if finished else math.nan
    return (
        request.index,
        request.arrival_s,
        request.prompt_tokens,
        output,
        request.cached_tokens,
        request.scheduled_s - request.arrival_s if finished else math.nan,
        first_s - request.arrival_s if finished else math.nan,
        (last_s - first_s) / (output - 1) if several else math.nan,
        request.max_itl_s if several else math.nan,
        e2e_s,
        e2e_s / output,
        request.migrations,
        request.preemptions,
        request.first_instance,
        request.last_instance,
        REQUEST_STATUSES.index(status),
        reason,
    )
