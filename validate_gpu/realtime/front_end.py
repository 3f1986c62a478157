"""The front end of a realtime run: it routes by what instances report, hosts the coordinator, and collects records."""

from __future__ import annotations

from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any

from l4sim.engine.config import EngineConfig
from l4sim.engine.protocol import EngineFactory
from l4sim.engine.request import Request
from l4sim.engine.vllm.engine import VLLMEngine
from l4sim.policies.agent import FRONT_END, Received, Started
from l4sim.policies.policy import Policy
from l4sim.policies.views import SOLE_KIND, InstanceKind
from l4sim.records import migration_table, segment_table
from l4sim.runtime.coordinator_host import CoordinatorHost
from l4sim.runtime.front_end import FrontEnd
from l4sim.runtime.trace_requests import TraceRequests
from l4sim.simulator import SimulationResult
from l4sim.workload.trace import Trace
from validate_gpu.decisions import Call
from validate_gpu.live_run import Iteration
from validate_gpu.realtime.clock import WallClock
from validate_gpu.realtime.transport import Connection
from validate_gpu.realtime.wire import Deliver, Ended, Failed, Lost, Records, Report, Stop, Submit


class ReportedView:
    """An instance as it last reported itself, and what has been sent to it since."""

    def __init__(self, instance: int, engine: EngineConfig) -> None:
        self.instance = instance
        self.kind: InstanceKind = SOLE_KIND
        self.as_of_s = 0.0
        self.running = 0
        self.waiting = 0
        self.waiting_tokens = 0
        self.pending_prompt_tokens = 0
        self.context_tokens = 0
        self.kv_blocks_free = engine.kv_blocks
        self.kv_blocks_total = engine.kv_blocks
        self.kv_block_tokens = engine.block_tokens

    def update(self, report: Report) -> None:
        """Take a report."""
        for name, value in report._asdict().items():
            setattr(self, name, value)

    def sent(self, request: Request) -> None:
        """Count a request that the next report will count."""
        self.waiting += 1
        self.waiting_tokens += request.total_tokens
        self.pending_prompt_tokens += request.total_tokens


class RealtimeFrontEnd:
    """Replays a trace on workers that are connected and ready."""

    def __init__(
        self,
        trace: Trace,
        policy: Policy,
        engine: EngineConfig,
        links: Mapping[int, Connection],
        clock: WallClock,
        make_engine: EngineFactory = VLLMEngine,
        *,
        view_age_s: float | None = None,
    ) -> None:
        """``view_age_s``: how often the router is told of reports; None: as they come, or as often as it wants."""
        self._links = links
        self._clock = clock
        # Only asked whether it would refuse a request.
        self._engine = make_engine(engine)
        self._views = [ReportedView(number, engine) for number in range(len(links))]
        self._front_end = FrontEnd(
            TraceRequests(trace, engine.block_tokens, prefix_caching=engine.prefix_caching),
            policy.router,
            clock,
            refusal=lambda request, instance: self._engine.refusal(request),
            submit=self._submit,
            on_all_ended=lambda: self._collect(at_once=False),
            lateness_counts=True,
            view_age_s=view_age_s,
        )
        for view in self._views:
            self._front_end.open(view)
        coordinator = policy.coordinator
        self._coordinator = None if coordinator is None else CoordinatorHost(coordinator, clock, self)
        self._records: dict[int, Records] = {}
        self._awaited = set(links)
        """Workers whose records are yet to come."""
        self._messages_sent = 0

    def run(self, inbox: SimpleQueue[tuple[int, Any]]) -> SimulationResult:
        """Replay the trace; where a worker fails, what has not ended has failed with its reason."""
        if self._coordinator is not None:
            coordinator = self._coordinator
            self._clock.at(0.0, lambda _: coordinator.stimulate(Started()))
        self._front_end.start()
        self._clock.serve(inbox, self._deliver)
        segments, migrations = segment_table(), migration_table()
        records = [self._records[number] for number in sorted(self._records)]
        for record in records:
            segments.numbers.frombytes(record.segments)
            migrations.extend(record.migrations)
        return SimulationResult(
            self._front_end.rows,
            segments,
            migrations,
            self._clock.now_s,
            len(self._views),
            tuple(record.kv_blocks_held for record in records),
            self._messages_sent + sum(record.messages_sent for record in records),
        )

    @property
    def executed(self) -> list[Iteration]:
        """Every iteration of the instances whose records have come."""
        return [iteration for number in sorted(self._records) for iteration in self._records[number].executed]

    @property
    def agents_calls(self) -> list[Call]:
        """What their agents were asked."""
        return [call for number in sorted(self._records) for call in self._records[number].calls]

    def _submit(self, request: Request, instance: int) -> None:
        self._links[instance].send(Submit(request))
        self._views[instance].sent(request)

    def _collect(self, *, at_once: bool) -> None:
        """Ask the workers for their records; the run is over when all have come."""
        for number in self._awaited:
            self._links[number].send(Stop(at_once))
        if not self._awaited:
            self._clock.stop()

    # Messages.

    def tell(self, sender: int, to: int, message: Any) -> None:
        """Bring the coordinator's message to the agent at an address."""
        self._messages_sent += 1
        if to in self._links:
            self._links[to].send(Deliver(to, sender, message))
        else:
            self._on_message(to, Received(sender, message))

    def _deliver(self, received: tuple[int, Any]) -> None:
        sender, message = received
        match message:
            case Report():
                self._views[sender].update(message)
            case Ended(request) if not self._front_end.has_ended(request.index):
                self._front_end.finish(request)
            case Deliver(to, speaker, content):
                self._on_message(to, Received(speaker, content))
            case Records():
                self._records[sender] = message
                self._awaited.discard(sender)
                if not self._awaited:
                    self._clock.stop()
            case Failed(reason):
                self._fail(sender, reason)
            case Lost() if sender in self._awaited:
                self._fail(sender, "its process has ended")

    def _fail(self, instance: int, reason: str) -> None:
        """End the run: whatever has not ended has failed; the other workers' records are kept."""
        self._awaited.discard(instance)
        self._front_end.fail_rest(f"instance {instance}: {reason}")
        self._collect(at_once=True)

    def _on_message(self, to: int, received: Received) -> None:
        if to == FRONT_END:
            self._front_end.hear(received.sender, received.message)
        else:
            assert self._coordinator is not None, "a message to a coordinator that the policy does not have"
            self._coordinator.stimulate(received)
