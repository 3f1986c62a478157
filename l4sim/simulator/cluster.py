"""A fleet that replays a trace in simulated time: composition, and what happens to the fleet while it does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from l4sim.cost.model import CostModel
from l4sim.engine.config import EngineConfig
from l4sim.engine.protocol import EngineFactory
from l4sim.engine.vllm.engine import VLLMEngine
from l4sim.policies.agent import Agent, Coordinator, Draining, FleetStimulus, InstanceUp, Left, PeerDied, Started
from l4sim.policies.policy import Policy
from l4sim.policies.routers import Router
from l4sim.policies.views import SOLE_KIND, InstanceKind
from l4sim.records import MigrationRow, RequestRow, SegmentRow, Table, migration_table, segment_table
from l4sim.runtime.clock import Moment
from l4sim.runtime.coordinator_host import CoordinatorHost
from l4sim.runtime.executor import ExecutionError, Executor
from l4sim.runtime.front_end import FrontEnd, Progress
from l4sim.runtime.instance_host import InstanceHost
from l4sim.runtime.invariants import check_fleet, check_loop
from l4sim.runtime.migration.methods import MigrationRules
from l4sim.runtime.server import Server
from l4sim.runtime.trace_requests import TraceRequests
from l4sim.simulator.clock import SimulatedClock
from l4sim.simulator.modelled import Modelled
from l4sim.simulator.transport import Network, SimulatedTransport
from l4sim.specs.events import Drain, Fail
from l4sim.specs.front_end import NO_FRONT_END, FrontEndCosts
from l4sim.specs.options import DEFAULTS
from l4sim.specs.placement import Links, Placement
from l4sim.workload.trace import Trace


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """What one instance is made of."""

    engine: EngineConfig
    cost: CostModel
    kv_bytes_per_token: int
    """The model's, over all ranks."""
    kind: InstanceKind = SOLE_KIND
    make_engine: EngineFactory = VLLMEngine


class Join(NamedTuple):
    """An instance joins; it gets the next number."""

    spec: InstanceSpec
    time_s: float


FleetEvent = Join | Drain | Fail


class InstanceChange(NamedTuple):
    """What became of an instance during a run."""

    time_s: float
    instance: int
    change: str
    """``joined``, ``draining``, ``left`` or ``died``."""
    requests: int
    """How many were there, waiting ones included."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How the simulated world works, apart from engines and policies."""

    fast_forward: bool = DEFAULTS.fast_forward
    """Skip over iterations in which nothing can change; False steps through each one."""
    max_segment_iterations: int = 1024
    """Most iterations skipped at once: bounds the error of interpolating costs that are not affine."""
    network: Network = field(default_factory=Network)
    """Between agents."""
    failure_detection_s: float = DEFAULTS.failure_detection_s
    """From a death to the moment when agents know and the requests lost start over elsewhere."""
    migration: MigrationRules = field(default_factory=MigrationRules)
    front_end: FrontEndCosts = NO_FRONT_END
    """What requests and tokens take on their way to and from the engines."""
    view_age_s: float | None = None
    """Counts are published to the router so often (0: it sees live ones); None: as often as its policy has it."""
    validate: bool = field(default_factory=lambda: os.environ.get("L4SIM_VALIDATE") == "1")
    """Check the invariants of `docs/invariants.md` at every event; by default if L4SIM_VALIDATE is 1, as in tests."""


@dataclass(frozen=True, slots=True, eq=False)
class SimulationResult:
    """What a simulation leaves behind."""

    requests: Table[RequestRow]
    """In order of the requests' ends; ``request_id`` is the request's row in the trace."""
    iterations: Table[SegmentRow]
    migrations: Table[MigrationRow]
    end_s: float
    instances: int
    """That there have been, those that joined included."""
    kv_blocks_held: tuple[int, ...]
    """Per instance that is still up, KV blocks held at the end; all zero unless something leaks."""
    messages_sent: int
    """By agents, coordinators included."""
    changes: tuple[InstanceChange, ...] = ()
    """In order of time."""


def simulate(
    trace: Trace,
    *,
    router: Router,
    agents: Sequence[Agent] = (),
    coordinator: Coordinator | None = None,
    cluster: Placement,
    engine: EngineConfig,
    cost: CostModel,
    kv_bytes_per_token: int,
    failures: Sequence[tuple[int, float]] = (),
    rules: Rules | None = None,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> SimulationResult:
    """Replay a trace on a cluster of equal instances; for the rest see `simulate_fleet`.

    ``agents``: none, or one per instance. ``failures``: instances that die, and when.
    """
    kind = SOLE_KIND._replace(tensor_parallel=cluster.tensor_parallel)
    return simulate_fleet(
        trace,
        Policy(router, tuple(agents), coordinator),
        [InstanceSpec(engine, cost, kv_bytes_per_token, kind)] * cluster.instances,
        cluster,
        events=[Fail(instance, time_s) for instance, time_s in failures],
        rules=rules,
        progress=progress,
        executor=executor,
    )


def simulate_fleet(
    trace: Trace,
    policy: Policy,
    instances: Sequence[InstanceSpec],
    placement: Links,
    *,
    events: Sequence[FleetEvent] = (),
    rules: Rules | None = None,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> SimulationResult:
    """Replay a trace under a policy on a fleet whose instances may differ, join, drain and die.

    ``placement`` places those that join during the run too. A session's next turn arrives its delay after the turn
    before has ended, in whichever way. ``executor`` stands in for the cost models: live instances, whose measured
    seconds move the simulated clock. Where it fails, the run ends, and every request that has not ended has failed,
    with its reason.
    """
    return _Simulation(trace, policy, instances, placement, rules or Rules(), progress, executor).run(events)


class _Simulation:
    def __init__(
        self,
        trace: Trace,
        policy: Policy,
        instances: Sequence[InstanceSpec],
        placement: Links,
        rules: Rules,
        progress: Progress | None,
        executor: Executor | None,
    ) -> None:
        self._clock = SimulatedClock(self._check if rules.validate else None)
        self._policy = policy
        self._rules = rules
        self._costs: list[CostModel] = []
        self._executor = executor or Modelled(self._costs)
        self._transport = SimulatedTransport(self._clock, placement, rules.network, self._executor)
        first = instances[0].engine
        self._requests = TraceRequests(trace, first.block_tokens, prefix_caching=first.prefix_caching)
        self._front_end = FrontEnd(
            self._requests,
            policy.router,
            self._clock,
            refusal=lambda request, instance: self._hosts[instance].server.engine.refusal(request),
            submit=lambda request, instance: self._hosts[instance].server.submit(request),
            on_all_ended=self._clock.stop,
            progress=progress,
            costs=rules.front_end,
            view_age_s=rules.view_age_s,
        )
        self._migrations = migration_table()
        self._hosts: list[InstanceHost] = []
        self._coordinator = (
            None if policy.coordinator is None else CoordinatorHost(policy.coordinator, self._clock, self._transport)
        )
        self._transport.connect(self._hosts, self._coordinator, self._front_end)
        self._changes: list[InstanceChange] = []
        self._lost = 0
        """Requests of instances that died, until somebody notices."""
        for number, spec in enumerate(instances):
            self._add(spec, policy.agents[number] if policy.agents else None)

    def _add(self, spec: InstanceSpec, agent: Agent | None) -> InstanceHost:
        """Let an instance take requests."""
        number = len(self._hosts)
        rules = self._rules
        self._costs.append(spec.cost)
        server = Server(
            number,
            spec.make_engine(
                spec.engine,
                max_iterations=rules.max_segment_iterations if rules.fast_forward else 1,
                pool=self._executor.pool(number),
            ),
            self._executor,
            self._clock,
            kind=spec.kind,
            slowdown=0.0 if self._executor.measured else rules.migration.slowdown,
            validate=rules.validate,
        )
        host = InstanceHost(
            server,
            agent,
            self._clock,
            self._transport,
            rules.migration,
            self._migrations,
            kv_bytes_per_token=spec.kv_bytes_per_token,
            on_finished=self._front_end.finish,
            on_orphan=self._front_end.route,
            discard=lambda request: self._executor.discard(request, number),
        )
        cache_changed = getattr(self._policy.router, "cache_changed", None)
        if cache_changed is not None:
            server.report_cache(cache_changed)
        self._hosts.append(host)
        self._front_end.open(server.view)
        return host

    def run(self, events: Sequence[FleetEvent]) -> SimulationResult:
        for host in self._hosts:
            host.stimulate(Started())
        if self._coordinator is not None:
            self._coordinator.stimulate(Started())
        for event in events:
            match event:
                case Join(spec, time_s):
                    self._clock.at(time_s, self._on_join, spec)
                case Drain(instance, time_s):
                    self._clock.at(time_s, self._on_drain, instance)
                case Fail(instance, time_s):
                    self._clock.at(time_s, self._on_failure, instance)
        if self._front_end.left:
            self._front_end.start()
            try:
                self._clock.run()
            except ExecutionError as failure:
                self._front_end.fail_rest(str(failure))
        if self._front_end.left:
            raise AssertionError(f"{self._front_end.left} requests never ended")
        servers = [host.server for host in self._hosts]
        iterations = segment_table()
        for server in servers:
            iterations.numbers.extend(server.segments.numbers)
            # A million requests leave hundreds of megabytes here: not twice.
            del server.segments.numbers[:]
        return SimulationResult(
            self._front_end.rows,
            iterations,
            self._migrations,
            self._clock.now_s,
            len(servers),
            tuple(server.engine.kv_blocks_used for server in servers if server.alive),
            self._transport.messages_sent,
            tuple(self._changes),
        )

    # The fleet.

    def _on_join(self, moment: Moment) -> None:
        """An instance joins: its agent hears first, then everybody."""
        make_agent = self._policy.agent_for
        host = self._add(moment.value, None if make_agent is None else make_agent(len(self._hosts)))
        self._note(host, "joined", 0)
        host.stimulate(Started())
        self._tell_everybody(InstanceUp(host.server.number))

    def _on_drain(self, moment: Moment) -> None:
        host = self._hosts[moment.value]
        if not host.server.alive:
            return
        self._front_end.close(host.server.number)
        self._note(host, "draining", host.server.view.running + host.server.view.waiting)
        host.drain(lambda: self._on_empty(host))
        self._tell_everybody(Draining(host.server.number))
        host.look_whether_empty()

    def _on_empty(self, host: InstanceHost) -> None:
        """A draining instance has served or handed over all that it had."""
        host.server.fail()
        self._note(host, "left", 0)
        self._tell_everybody(Left(host.server.number))

    def _on_failure(self, moment: Moment) -> None:
        """An instance dies: what it held is lost, and its requests start over elsewhere once that is noticed."""
        host = self._hosts[moment.value]
        number = host.server.number
        if not host.server.alive:
            return
        orphans = host.departures.on_death()
        for other in self._hosts:
            other.departures.on_peer_died(number)
        orphans += host.server.fail()
        self._front_end.close(number)
        self._note(host, "died", len(orphans))
        self._lost += len(orphans)
        detection_s = self._clock.now_s + self._rules.failure_detection_s
        self._clock.at(detection_s, self._on_detection, (number, orphans))

    def _on_detection(self, moment: Moment) -> None:
        number, orphans = moment.value
        self._tell_everybody(PeerDied(number))
        self._lost -= len(orphans)
        for request in orphans:
            self._front_end.route(request)

    def _check(self, moment: Moment) -> None:
        check_fleet(self._hosts, self._front_end.in_flight - self._front_end.held, self._lost)
        if self._requests.loop is not None:
            check_loop(self._requests.loop)

    def _note(self, host: InstanceHost, change: str, requests: int) -> None:
        self._changes.append(InstanceChange(self._clock.now_s, host.server.number, change, requests))

    def _tell_everybody(self, stimulus: FleetStimulus) -> None:
        """All agents, then the coordinator, then the router."""
        for host in self._hosts:
            host.stimulate(stimulus)
        if self._coordinator is not None:
            self._coordinator.stimulate(stimulus)
        self._front_end.notice(stimulus)
