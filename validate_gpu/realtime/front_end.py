"""The front end of a realtime run: arrivals by the wall's clock, routing, the coordinator, and what is recorded."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from queue import SimpleQueue
from typing import Any

from l4sim.engine.config import EngineConfig
from l4sim.engine.instance import Instance
from l4sim.engine.request import Request
from l4sim.policies.agent import COORDINATOR, FRONT_END, Instruction, Received, Send, SetTimer, Started, TimerFired
from l4sim.policies.policy import Policy
from l4sim.policies.routers import Listening
from l4sim.policies.views import SOLE_KIND, InstanceKind, RequestView
from l4sim.simulator.clock import Moment
from l4sim.simulator.rows import SimulationResult, request_row
from l4sim.workload.trace import Trace
from validate_gpu.decisions import Call
from validate_gpu.live_run import Iteration
from validate_gpu.realtime.clock import WallClock
from validate_gpu.realtime.wire import Deliver, Ended, Failed, Link, Lost, Records, Report, Stop, Submit


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


class FrontEnd:
    """Replays a trace on workers that are connected and ready."""

    def __init__(
        self,
        trace: Trace,
        policy: Policy,
        engine: EngineConfig,
        links: Mapping[int, Link],
        clock: WallClock,
    ) -> None:
        self._trace = trace
        self._policy = policy
        self._links = links
        self._clock = clock
        # Only asked whether it would refuse a request.
        self._instance = Instance(engine)
        self._views = [ReportedView(number, engine) for number in range(len(links))]
        self._rows = array("d")
        self._reasons: dict[str, int] = {"": 0}
        self._left = set(range(len(trace)))
        self._records: dict[int, Records] = {}
        self._awaited = set(links)
        """Workers whose records are yet to come."""
        self._messages_sent = 0
        self._followers: dict[int, list[int]] = {}
        for row, after in enumerate(trace.after.tolist()):
            if after >= 0:
                self._followers.setdefault(after, []).append(row)

    def run(self, inbox: SimpleQueue[tuple[int, Any]]) -> SimulationResult:
        """Replay the trace; where a worker fails, what has not ended has failed with its reason."""
        if self._policy.coordinator is not None:
            self._clock.at(0.0, self._on_coordinator, Started())
        for row, after in enumerate(self._trace.after.tolist()):
            if after < 0:
                self._arrive_at(float(self._trace.arrival_s[row]), row)
        self._clock.serve(inbox, self._deliver)
        iterations, migrations = array("d"), array("d")
        for number in sorted(self._records):
            iterations.frombytes(self._records[number].iterations)
            migrations.frombytes(self._records[number].migrations)
        return SimulationResult(
            self._rows,
            tuple(self._reasons),
            iterations,
            migrations,
            self._clock.now_s,
            tuple(self._records[number].kv_blocks_held for number in sorted(self._records)),
            self._messages_sent + sum(records.messages_sent for records in self._records.values()),
        )

    @property
    def executed(self) -> list[Iteration]:
        """Every iteration of the instances whose records have come."""
        return [iteration for number in sorted(self._records) for iteration in self._records[number].executed]

    @property
    def agents_calls(self) -> list[Call]:
        """What their agents were asked."""
        return [call for number in sorted(self._records) for call in self._records[number].calls]

    # Requests.

    def _arrive_at(self, time_s: float, row: int) -> None:
        self._clock.at(time_s, self._on_arrival, (time_s, row))

    def _on_arrival(self, moment: Moment) -> None:
        # The moment that it was due: if the front end is late, that is latency too.
        arrival_s, row = moment.value
        if row not in self._left:
            return
        request = self._request(row, arrival_s)
        reason = self._instance.refusal(request)
        if reason is not None:
            self._end(request, "rejected", reason)
            return
        view = RequestView(row, request.prompt_tokens, request.session, (), request.total_tokens)
        chosen = self._views[self._policy.router.route(view, self._views)]
        request.first_instance = request.last_instance = chosen.instance
        self._links[chosen.instance].send(Submit(request))
        chosen.sent(request)

    def _request(self, row: int, arrival_s: float) -> Request:
        trace = self._trace
        return Request(
            row, arrival_s, int(trace.prompt_tokens[row]), int(trace.output_tokens[row]), int(trace.session[row])
        )

    def _end(self, request: Request, status: str, reason: str = "") -> None:
        self._rows.extend(request_row(request, status, self._reasons.setdefault(reason, len(self._reasons))))
        self._left.remove(request.index)
        for row in self._followers.get(request.index, ()):
            ended_s = request.last_token_s if status == "finished" else self._clock.now_s
            self._arrive_at(ended_s + float(self._trace.delay_s[row]), row)
        if not self._left:
            self._collect(at_once=False)

    def _collect(self, *, at_once: bool) -> None:
        """Ask the workers for their records; the run is over when all have come."""
        for number in self._awaited:
            self._links[number].send(Stop(at_once))
        if not self._awaited:
            self._clock.stop()

    # Messages.

    def _deliver(self, received: tuple[int, Any]) -> None:
        sender, message = received
        match message:
            case Report():
                self._views[sender].update(message)
            case Ended(request) if request.index in self._left:
                self._end(request, "finished")
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
        text = self._reasons.setdefault(f"instance {instance}: {reason}", len(self._reasons))
        for row in sorted(self._left):
            request = self._request(row, float(self._trace.arrival_s[row]))
            self._rows.extend(request_row(request, "failed", text))
        self._left.clear()
        self._collect(at_once=True)

    def _on_message(self, to: int, received: Received) -> None:
        router = self._policy.router
        if to == FRONT_END:
            if isinstance(router, Listening):
                router.receive(received.sender, received.message, self._clock.now_s)
        else:
            self._stimulate_coordinator(received)

    def _on_coordinator(self, moment: Moment) -> None:
        self._stimulate_coordinator(moment.value)

    def _stimulate_coordinator(self, stimulus: Any) -> None:
        coordinator = self._policy.coordinator
        assert coordinator is not None, "a message to a coordinator that the policy does not have"
        self._carry_out(coordinator.handle(stimulus, self._clock.now_s))

    def _carry_out(self, instructions: Sequence[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(to, message):
                    self._messages_sent += 1
                    if to in self._links:
                        self._links[to].send(Deliver(to, COORDINATOR, message))
                    else:
                        self._on_message(to, Received(COORDINATOR, message))
                case SetTimer(delay_s, name):
                    self._clock.at(self._clock.now_s + delay_s, self._on_coordinator, TimerFired(name))
                case _:
                    raise AssertionError(f"a coordinator has no instance to carry out {instruction}")
