"""Llumnix: dispatch by remaining steps, and a central scheduler that pairs instances for live migration.

Follows Llumnix at its last release (`AlibabaPAI/llumnix`, 2025; Sun et al., OSDI '24) with its defaults
(`llumnix/config/default.py`) and migration switched on. The load metric is *remaining steps* (`load_computation.py`):
the KV blocks that are free once all waiting requests have theirs, per request; how many blocks each may still grow by.

- Dispatch (`dispatch_policy.py`, `load`): to the instance with the most remaining steps, by what the manager heard in
  its last poll (every 50 ms); the first of equals. Between polls its picture does not change, whatever it dispatches.
- Migration (`manager.py`, `migration_scheduler.py`, `migration_filter.py`, `migration_policy.py`): after each poll,
  of the instances that do not migrate already (one migration at a time per instance), those below 3 remaining steps,
  fewest first, are paired with those above 3, most first. `defrag`, the default, takes all pairs; `balanced` only those
  that leave the destination at 3 or more and narrow the gap without turning it round.
- The source of a pair migrates its shortest running request (`local_migration_scheduler.py`, `SR`). How a migration
  itself goes is `l4sim.runtime.migration`'s business.

Departures:

- The manager is two parts, the router at the front end and a coordinator. The instances' agents report to the latter by
  message every 50 ms. 10 ms later it tells the router of the loads and pairs whoever has reported, so that a lost
  message costs one round, and dispatch and migration see the same picture.
- An agent says in its reports that it migrates, and to where; the manager learns it from the migration's return.
- The source counts an instance with preempted requests in its queue as one to migrate from at any load. Views do not
  tell these from other waiting requests, and need not: what a preempted request waits for are blocks that are not
  there, so that the instance is below 3 steps anyway.
- An instance that drains reports minus infinitely many remaining steps, as if it had the paper's fake request of
  infinite usage, by which an instance to be terminated is emptied: it comes first among the sources, and migrates one
  request after the other.
- `balanced` foresees the loads with the instance's mean request where the source takes its last running one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from l4sim.policies.agent import (
    COORDINATOR,
    FRONT_END,
    Draining,
    Instruction,
    Migrate,
    MigrationEnded,
    OwnView,
    Received,
    Send,
    SetTimer,
    Started,
    Stimulus,
    TimerFired,
)
from l4sim.policies.views import InstanceView, RequestView

PairPolicy = Literal["defrag", "balanced"]

_POLLING_INTERVAL_S = 0.05
_REPORTS_IN_S = 0.01
"""Ours: how long after the reports are sent the coordinator acts on them; many times a message's way."""
_MIGRATE_OUT_STEPS = 3.0
"""The source's threshold of -3.0, which is on a load that is minus the remaining steps."""


class Report(NamedTuple):
    """What an instance's agent tells the coordinator."""

    steps: float
    """Remaining steps."""
    steps_after_out: float
    """Those that there would be with one request less."""
    steps_after_in: float
    """Those that there would be with one request more."""
    sending_to: int | None
    """The destination of the migration that the instance is the source of."""


class MoveOne(NamedTuple):
    """The coordinator's message to a source: migrate a request to this instance."""

    destination: int


class Loads(NamedTuple):
    """The coordinator's message to the router."""

    steps: dict[int, float]
    """Remaining steps by instance, of those that have reported."""


def remaining_steps(free_blocks: float, requests: int) -> float:
    """Blocks that each request may still grow by; infinite without requests (`RemainingStepsLoad`)."""
    return free_blocks / requests if requests > 0 else math.inf


def pair(reports: dict[int, Report], policy: PairPolicy) -> list[tuple[int, int]]:
    """Who is to migrate a request to whom: (source, destination), from the latest reports by instance."""
    sending = {instance for instance, report in reports.items() if report.sending_to is not None}
    busy = {*sending, *(reports[instance].sending_to for instance in sending)}
    steps = {instance: report.steps for instance, report in reports.items() if instance not in busy}
    instances = sorted(steps)
    sources = sorted((i for i in instances if steps[i] < _MIGRATE_OUT_STEPS), key=steps.__getitem__)
    destinations = sorted((i for i in instances if steps[i] > _MIGRATE_OUT_STEPS), key=lambda i: -steps[i])
    return [
        (source, destination)
        for source, destination in zip(sources, destinations, strict=False)
        if policy == "defrag" or _balances(reports[source], reports[destination])
    ]


def _balances(source: Report, destination: Report) -> bool:
    if destination.steps_after_in < _MIGRATE_OUT_STEPS:
        return False
    if source.steps == -math.inf:
        return True
    gap, gap_after = destination.steps - source.steps, destination.steps_after_in - source.steps_after_out
    return 0 < gap_after < gap or destination.steps == math.inf


class LlumnixRouter:
    """Dispatches to the instance with the most remaining steps."""

    def __init__(self, instances: int) -> None:
        self._steps: dict[int, float] = {}
        """By instance, as last heard of."""
        self._numbers: Sequence[int] = range(instances)
        """Of the instances that there are, in order."""
        self._choice = 0

    def receive(self, sender: int, message: Any, now_s: float) -> None:
        """Take the `Loads` that the coordinator has heard of."""
        self._steps.update(message.steps)
        self._choose()

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position that had the most remaining steps at the last poll, of those that are still there.

        Who has not reported yet passes for idle.
        """
        if len(self._numbers) == len(instances):
            return self._choice
        return self._most([view.instance for view in instances])

    def follow(self, numbers: Sequence[int]) -> None:
        """Choose among these from now on."""
        self._numbers = numbers
        self._choose()

    def _choose(self) -> None:
        self._choice = self._most(self._numbers)

    def _most(self, numbers: Sequence[int]) -> int:
        """The position of the one with the most remaining steps, the first of equals."""
        steps = [self._steps.get(number, math.inf) for number in numbers]
        return steps.index(max(steps))


class LlumnixAgent:
    """An instance's part: reports its load, and migrates a request when told to."""

    def __init__(self, instance: int) -> None:
        self._instance = instance
        self._sending_to: int | None = None
        self._drains = False

    def handle(self, stimulus: Stimulus, own: OwnView, now_s: float) -> Sequence[Instruction]:
        """React to a stimulus."""
        match stimulus:
            case Started():
                return (SetTimer(_POLLING_INTERVAL_S, "report"),)
            case TimerFired():
                return (Send(COORDINATOR, self._report(own)), SetTimer(_POLLING_INTERVAL_S, "report"))
            case Received(_, MoveOne(destination)):
                return self._migrate(own, destination)
            case MigrationEnded():
                self._sending_to = None
            case Draining(instance):
                self._drains = self._drains or instance == self._instance
        return ()

    def _report(self, own: OwnView) -> Report:
        if self._drains:
            return Report(-math.inf, -math.inf, -math.inf, self._sending_to)
        free_blocks = own.kv_blocks_free - own.waiting_tokens / own.kv_block_tokens
        requests = own.running + own.waiting
        mean_blocks = own.context_tokens / max(own.running, 1) / own.kv_block_tokens
        return Report(
            remaining_steps(free_blocks, requests),
            remaining_steps(free_blocks + mean_blocks, requests - 1),
            remaining_steps(free_blocks - mean_blocks, requests + 1),
            self._sending_to,
        )

    def _migrate(self, own: OwnView, destination: int) -> Sequence[Instruction]:
        decoding = own.decoding()
        if self._sending_to is not None or not decoding:
            return ()
        self._sending_to = destination
        shortest = min(decoding, key=lambda request: request.context_tokens)
        return (Migrate(shortest.request, destination, "rebalance"),)


class LlumnixCoordinator:
    """The manager's part that decides on migrations."""

    def __init__(self, policy: PairPolicy = "defrag") -> None:
        self._policy: PairPolicy = policy
        self._reports: dict[int, Report] = {}
        """What has come since the last round."""

    def handle(self, stimulus: Stimulus, now_s: float) -> Sequence[Instruction]:
        """React to a stimulus."""
        match stimulus:
            case Started():
                return (SetTimer(_POLLING_INTERVAL_S + _REPORTS_IN_S, "round"),)
            case Received(sender, Report() as report):
                self._reports[sender] = report
            case TimerFired():
                reports, self._reports = self._reports, {}
                loads = Loads({instance: report.steps for instance, report in reports.items()})
                moves = [Send(source, MoveOne(to)) for source, to in pair(reports, self._policy)]
                return (Send(FRONT_END, loads), *moves, SetTimer(_POLLING_INTERVAL_S, "round"))
        return ()
