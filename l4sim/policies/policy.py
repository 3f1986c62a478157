"""What a policy is: a router, perhaps agents and a coordinator, built anew for every run from a setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from l4sim.cost.model import CostModel
from l4sim.policies.agent import Agent, Coordinator
from l4sim.policies.plan import Planned, Plans
from l4sim.policies.routers import Router
from l4sim.policies.views import InstanceKind
from l4sim.workload.histogram import LengthHistogram
from l4sim.workload.trace import Trace


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """What a policy may know of an instance before a run begins."""

    kind: InstanceKind
    cost: CostModel
    """Seconds of an iteration there, as far as a policy may reckon with them."""
    kv_tokens: int
    """Tokens that its KV cache holds."""
    max_num_seqs: int
    """Most requests in one iteration."""
    max_num_batched_tokens: int
    """Most tokens computed in one iteration."""
    max_model_len: int
    """Longest context that it serves; longer requests are rejected."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a policy may be built from: the fleet, the traffic that a plan may know, a seed.

    What takes time to compute is behind a function, so that only policies that need it pay for it.
    """

    fleet: tuple[InstanceFacts, ...]
    """The instances that are there at the start, by number."""
    seed: int
    """For every random choice of the policy."""
    sample: Callable[[], Trace]
    """The requests that a plan may know: the trace's first ones. Without prefix ids where no instance caches them."""
    histogram: Callable[[], LengthHistogram] | None
    """Lengths and rates that the user wants planned for in place of the sample's; None where there are none."""
    prefix_id_tokens: int
    """Prompt tokens that one of a request's prefix ids stands for."""
    follow_prefixes: bool
    """Whether requests carry prefix ids, and the user wants them sent where their prefix is cached."""
    output_tokens: Callable[[], Sequence[int]]
    """True output lengths by request number. For oracles alone: for any other policy it raises InputError."""
    plans: Plans
    """Gives a builder its plan: shared with other policies of a comparison, or imposed from outside."""

    @property
    def instances(self) -> int:
        """How many instances there are at the start."""
        return len(self.fleet)


Kind = Literal["l4", "rival", "baseline", "oracle"]
"""`l4`: L4 and its variants. `rival`: a scheduler that L4 is held against. `baseline`: a balancer that knows neither
lengths nor prefixes; L4 is held against it too. `oracle`: knows what no system can, and is no rival."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy ready to run: state of one run, not to be used for a second one."""

    router: Router
    agents: tuple[Agent, ...] = ()
    """None, or one per instance that is there at the start."""
    coordinator: Coordinator | None = None
    partition: Planned | None = None
    """The plan that it begins with, where it has one."""
    boundary_moves: Sequence[tuple[float, int, int]] = ()
    """Grows during the run: when which stage's upper end was moved, and to how many tokens."""
    agent_for: Callable[[int], Agent] | None = None
    """Makes the agent of an instance that joins during the run; None where a policy has no agents."""
    kind: Kind = "rival"
    """Taken from the policy's entry when it is built."""


Builder = Callable[[Setting], Policy]
"""Makes a policy for one run."""


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """A policy that can be asked for by name."""

    name: str
    build: Builder
    kind: Kind = "rival"
    summary: str = ""
    """One line: where new requests go, and what moves."""
    source: str = ""
    """What it follows: a paper, or product, version and file; `ours` where it follows nothing."""
    joins: bool = True
    """Whether it makes use of instances that join during a run."""
    drains: bool = True
    """Whether it copes with instances that drain and leave."""
    roles: bool = False
    """Whether it heeds that some instances are for prompts alone, or for decoding alone (`InstanceKind.role`)."""


PolicyChoice = str | tuple[str, Builder] | PolicyEntry
"""A policy to run: by name (one of `l4sim.policies.registry.POLICIES`, an entry point of another package, or
``module:attribute``), or one's own, as an entry or, in short, as a name and what builds it."""
