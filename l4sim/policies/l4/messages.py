"""What L4's agents say to one another **[ours: the paper's messages are open]**."""

from __future__ import annotations

from typing import NamedTuple

from l4sim.policies.plan import Plan


class Ask(NamedTuple):
    """A request has outgrown its stage: who takes it?"""

    request: int
    context_tokens: int


class Offer(NamedTuple):
    """I have room for the request, kept for a moment; this is my load."""

    request: int
    load: float


class Decline(NamedTuple):
    """Your offer is not taken up: keep nothing."""

    request: int


class Bid(NamedTuple):
    """I am loaded: who would take some of it?"""

    round: int
    load: float
    across: bool
    """Whether it goes to another stage than the bidder's."""


class Slack(NamedTuple):
    """The answer to a bid: my load is so much lower that moving requests here pays."""

    round: int
    load: float


class Report(NamedTuple):
    """A member of a stage tells its leader the requests that it has, smoothed over time."""

    batch: float


class Summary(NamedTuple):
    """The leader of a stage tells the leader of the stage below how full the stage is, relative to the plan."""

    stage: int
    pressure: float


class Boundary(NamedTuple):
    """From now on, stage ``stage`` ends at ``hi_tokens``. The higher version holds; of equals, the higher end."""

    stage: int
    version: int
    hi_tokens: int


class Lengths(NamedTuple):
    """An agent tells the coordinator of the requests that ended with it in a period."""

    requests: int
    sample: tuple[tuple[int, int, int], ...]
    """Prompt, cached and output tokens of some of them, each of which stands for as many."""


class NewPlan(NamedTuple):
    """The coordinator tells everybody the plan that is in force."""

    generation: int
    """Counts plans; the first one, which everybody began with, is 0."""
    plan: Plan
    batches: tuple[float, ...]
    """Requests in flight per instance that it expects, by stage."""
