"""What L4's agents say to one another **[ours: the paper's messages are open]**."""

from __future__ import annotations

from typing import NamedTuple

from l4sim.policies.plan import Plan


class Ask(NamedTuple):
    """To instances of the stage for its length: a request of mine needs a place; can you take it?"""

    request: int
    context_tokens: int


class Offer(NamedTuple):
    """The answer to an `Ask`: I have reserved room for the request for a moment, and this is my load."""

    request: int
    load: float


class Decline(NamedTuple):
    """The answer to an `Offer` that is not taken: release the room."""

    request: int


class Bid(NamedTuple):
    """To a few peers: this is my load; would you take some of it?"""

    round: int
    load: float
    across: bool
    """Whether it goes to another stage than the bidder's."""


class Slack(NamedTuple):
    """The answer to a `Bid`: this is my load, so much lower that moving requests here pays."""

    round: int
    load: float


class Report(NamedTuple):
    """A member of a stage tells its leader the requests that it has, smoothed over time."""

    batch: float


class Summary(NamedTuple):
    """The leader of a stage tells the leader of the stage below how full the stage is, relative to the plan."""

    stage: int
    pressure: float


class State(NamedTuple):
    """A member of a stage tells its leader what its KV cache holds, and a sample of its requests' lengths."""

    used_tokens: int
    queued_tokens: int
    capacity_tokens: int
    lengths: tuple[int, ...]


class StageState(NamedTuple):
    """The leader of a stage tells the leader of the stage below the same of all its members, as far as it knows."""

    stage: int
    used_tokens: float
    """The queue's included, and a part that no member has told of estimated by the others'."""
    capacity_tokens: float
    lengths: tuple[int, ...]


class Boundary(NamedTuple):
    """From now on, stage ``stage`` ends at ``hi_tokens``. The higher version holds; of equals, the higher end."""

    stage: int
    version: int
    hi_tokens: int


class Lengths(NamedTuple):
    """From an agent to the coordinator: the requests that finished on its instance in a period."""

    requests: int
    sample: tuple[tuple[int, int, int], ...]
    """Prompt, cached and output tokens of a uniform sample of them."""


class NewPlan(NamedTuple):
    """From the coordinator to everybody: the current plan."""

    generation: int
    """Counts plans; the first one, which everybody began with, is 0."""
    plan: Plan
    batches: tuple[float, ...]
    """Requests in flight per instance that it expects, by stage."""
