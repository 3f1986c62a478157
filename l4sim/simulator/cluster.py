"""A cluster replaying a trace: arrivals through a router to servers; agents, their messages and migrations."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from l4sim.cost.model import CostModel
from l4sim.engine.config import EngineConfig
from l4sim.engine.instance import Instance, Outcome
from l4sim.engine.request import Request
from l4sim.policies.agent import Agent, Coordinator, Crossed, Finished, Joined, Migrate, MigrationEnded, PeerDied
from l4sim.policies.routers import Router
from l4sim.policies.views import DecodingRequest, RequestView
from l4sim.simulator.arrivals import Arrivals
from l4sim.simulator.clock import Clock, Moment
from l4sim.simulator.executor import ExecutionError, Executor, Modelled
from l4sim.simulator.messages import AgentHost, Network
from l4sim.simulator.migration import MigrationRules, Migrations
from l4sim.simulator.rows import SimulationResult, request_row
from l4sim.simulator.server import Listener, Server
from l4sim.specs.placement import Placement
from l4sim.workload.trace import Trace

_REPORT_EVERY = 512

Progress = Callable[[float, int], None]
"""Simulated seconds, requests ended."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How the simulated world works, apart from engines and policies."""

    fast_forward: bool = True
    """Skip over iterations in which nothing can change; False steps through each one."""
    max_segment_iterations: int = 1024
    """Most iterations skipped at once: bounds the error of interpolating costs that are not affine."""
    network: Network = field(default_factory=Network)
    """Between agents."""
    failures: tuple[tuple[int, float], ...] = ()
    """Instances that die, and when. The front end routes nothing there any more: its connections break."""
    failure_detection_s: float = 1.0
    """From a death to the moment when agents know and the requests lost start over elsewhere."""
    migration: MigrationRules = field(default_factory=MigrationRules)


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
    rules: Rules | None = None,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> SimulationResult:
    """Replay a trace on a cluster of equal instances.

    ``agents``: none, or one per instance. ``kv_bytes_per_token`` is the model's, over all ranks. A session's next turn
    arrives its delay after the turn before it has ended, in whichever way. ``executor`` stands in for the cost model:
    live instances, whose measured seconds move the simulated clock. Where it fails, the run ends, and every request
    that has not ended has failed, with its reason.

    Raises:
        InputError: the trace's prefix blocks and the engine's KV blocks do not fit together.
    """
    return _Simulation(
        trace,
        router,
        agents,
        coordinator,
        cluster,
        engine,
        executor or Modelled(cost),
        kv_bytes_per_token,
        rules or Rules(),
        progress,
    ).run()


class _Simulation(Listener):
    def __init__(
        self,
        trace: Trace,
        router: Router,
        agents: Sequence[Agent],
        coordinator: Coordinator | None,
        cluster: Placement,
        engine: EngineConfig,
        executor: Executor,
        kv_bytes_per_token: int,
        rules: Rules,
        progress: Progress | None,
    ) -> None:
        self._clock = Clock()
        self._arrivals = Arrivals(trace, engine.block_tokens, prefix_caching=engine.prefix_caching)
        self._router = router
        self._rules = rules
        self._progress = progress
        most = rules.max_segment_iterations if rules.fast_forward else 1
        self._servers = [
            Server(
                number,
                Instance(
                    engine,
                    hash_block_tokens=self._arrivals.hash_block_tokens,
                    max_iterations=most,
                    pool=executor.pool(number),
                ),
                executor,
                self._clock,
                self,
                # Iterations that are really executed have been slowed down already.
                slowdown=rules.migration.slowdown if isinstance(executor, Modelled) else 0.0,
            )
            for number in range(cluster.instances)
        ]
        self._views = [server.view for server in self._servers]
        self._migrations = Migrations(
            self._clock, cluster, kv_bytes_per_token, rules.migration, executor, self._on_migration_end, self._submit
        )
        self._agents = AgentHost(self._clock, rules.network, self._servers, agents, coordinator, router, self._migrate)
        self._rows = array("d")
        self._reasons: dict[str, int] = {"": 0}
        self._has_ended = bytearray(len(trace))
        self._left = len(trace)
        self._deaths: list[tuple[int, float, int]] = []

    def run(self) -> SimulationResult:
        self._agents.start()
        for instance, time_s in self._rules.failures:
            self._clock.at(time_s, self._on_failure, instance)
        first_s = self._arrivals.next_open_s
        if first_s is not None:
            self._clock.at(first_s, self._on_open_arrival)
            try:
                self._clock.run()
            except ExecutionError as failure:
                self._fail_rest(str(failure))
        if self._left:
            raise AssertionError(f"{self._left} requests never ended")
        iterations = array("d")
        for server in self._servers:
            iterations.extend(server.segments)
            # A million requests leave hundreds of megabytes here: not twice.
            del server.segments[:]
        return SimulationResult(
            self._rows,
            tuple(self._reasons),
            iterations,
            self._migrations.rows,
            self._clock.now_s,
            tuple(s.instance.pool.total - s.instance.pool.free for s in self._servers if s.alive),
            self._agents.messages_sent,
            tuple(self._deaths),
        )

    # Requests.

    def _on_open_arrival(self, moment: Moment) -> None:
        row = self._arrivals.pop_open()
        next_s = self._arrivals.next_open_s
        if next_s is not None:
            self._clock.at(max(next_s, self._clock.now_s), self._on_open_arrival)
        self._arrive(row)

    def _on_closed_arrival(self, moment: Moment) -> None:
        self._arrive(moment.value)

    def _arrive(self, row: int) -> None:
        request = self._arrivals.request(row, self._clock.now_s)
        reason = self._servers[0].instance.refusal(request)
        if reason is not None:
            self._end(request, "rejected", reason)
            return
        self._submit(request)

    def _submit(self, request: Request) -> None:
        """Send a request to the instance that the router chooses."""
        if not self._views:
            self._end(request, "failed", "no instance is left")
            return
        view = RequestView(
            request.index, request.prompt_tokens, request.session, request.prefix_ids, request.total_tokens
        )
        server = self._servers[self._views[self._router.route(view, self._views)].instance]
        request.last_instance = server.number
        if request.first_instance < 0:
            request.first_instance = server.number
        server.submit(request)

    def _end(self, request: Request, status: str, reason: str = "") -> None:
        self._rows.extend(request_row(request, status, self._reasons.setdefault(reason, len(self._reasons))))
        for row, delay_s in self._arrivals.following(request.index):
            self._clock.at(self._clock.now_s + delay_s, self._on_closed_arrival, row)
        assert not self._has_ended[request.index], f"request {request.index} has ended before"
        self._has_ended[request.index] = 1
        self._left -= 1
        ended = len(self._has_ended) - self._left
        if self._progress is not None and ended % _REPORT_EVERY == 0:
            self._progress(self._clock.now_s, ended)
        if not self._left:
            self._clock.stop()

    def _fail_rest(self, reason: str) -> None:
        """End every request that has not ended."""
        for row in np.flatnonzero(np.frombuffer(self._has_ended, dtype=np.uint8) == 0).tolist():
            self._end(self._arrivals.request(row), "failed", reason)

    # What servers tell.

    def on_outcome(self, server: Server, outcome: Outcome) -> None:
        for request in outcome.finished:
            self._migrations.on_ended(request)
            self._end(request, "finished")
            if server.reports_finished:
                done = Finished(request.prompt_tokens, request.cached_tokens, request.output_tokens)
                self._agents.stimulate(server.number, done)
        for request in outcome.crossed:
            context_tokens = server.instance.decoding.context_tokens(request)
            self._agents.stimulate(
                server.number, Crossed(DecodingRequest(request.index, context_tokens, request.cached_tokens))
            )

    def on_departed(self, server: Server, requests: Sequence[Request]) -> None:
        for request in requests:
            self._migrations.on_departed(server, request)

    def on_preempted(self, server: Server, requests: Sequence[Request]) -> None:
        for request in requests:
            self._migrations.on_preempted(request)

    # Migrations.

    def _migrate(self, source: Server, wish: Migrate) -> None:
        self._migrations.ask(source, wish.request, self._servers[wish.to], wish.kind)

    def _on_migration_end(self, source: Server, request: int, destination: int, done: bool, reason: str) -> None:
        self._agents.stimulate_later(source.number, MigrationEnded(request, destination, done, reason))
        if done:
            self._agents.stimulate_later(destination, Joined(request))

    # Failures.

    def _on_failure(self, moment: Moment) -> None:
        """An instance dies: what it held is lost, and its requests start over elsewhere once that is noticed."""
        server = self._servers[moment.value]
        if not server.alive:
            return
        orphans = [*self._migrations.on_failure(server), *server.fail()]
        self._views.remove(server.view)
        self._deaths.append((server.number, self._clock.now_s, len(orphans)))
        self._clock.at(
            self._clock.now_s + self._rules.failure_detection_s, self._on_detection, (server.number, orphans)
        )

    def _on_detection(self, moment: Moment) -> None:
        number, orphans = moment.value
        for address in self._agents.everybody():
            self._agents.stimulate(address, PeerDied(number))
        for request in orphans:
            self._submit(request)
