"""One process: a live instance, its agent, and its connections to the front end and to its peers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, TypeVar

from l4sim.engine.config import EngineConfig
from l4sim.engine.instance import Instance, Outcome
from l4sim.engine.request import Request
from l4sim.errors import InputError
from l4sim.policies.agent import (
    FRONT_END,
    Crossed,
    Finished,
    Instruction,
    Joined,
    Migrate,
    MigrationEnded,
    Received,
    ReportFinished,
    Send,
    SetTimer,
    Started,
    Stimulus,
    TimerFired,
    Watch,
)
from l4sim.policies.views import DecodingRequest
from l4sim.simulator.clock import Moment
from l4sim.simulator.executor import ExecutionError
from l4sim.simulator.migration import MigrationRules
from l4sim.simulator.server import Listener, Server
from l4sim.specs.model import Model
from validate_gpu.decisions import RecordingAgent
from validate_gpu.live.build import LiveOptions, build_engine
from validate_gpu.live.clock import no_collections
from validate_gpu.live.device import failures_of
from validate_gpu.live.engine import DeviceEngine
from validate_gpu.live.executor import LiveExecutor
from validate_gpu.live.sequences import Sequences
from validate_gpu.realtime.arrivals import Arrivals
from validate_gpu.realtime.clock import WallClock
from validate_gpu.realtime.departures import Departures
from validate_gpu.realtime.server import RealtimeServer
from validate_gpu.realtime.wire import (
    Deliver,
    Ended,
    Failed,
    Goodbye,
    Link,
    Lost,
    Ready,
    Records,
    Report,
    Start,
    Stop,
    Submit,
)

Message = TypeVar("Message")


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Everything that a worker needs to know; it travels to the new process."""

    number: int
    model: Model
    engine: EngineConfig
    options: LiveOptions
    seed: int
    cpus: frozenset[int]
    """The CPUs that it may use."""
    agent: RecordingAgent | None
    migration: MigrationRules
    connections: Mapping[int, Connection[Any, Any]]
    """To the front end and to each peer, by address."""


def run_worker(spec: WorkerSpec) -> None:
    """Serve until the front end wants nothing more; the process's main function."""
    os.sched_setaffinity(0, spec.cpus)
    inbox: SimpleQueue[tuple[int, Any]] = SimpleQueue()
    links = {peer: Link(connection, peer, inbox) for peer, connection in spec.connections.items()}
    front_end = links[FRONT_END]
    try:
        engine = build_engine(spec.model, spec.engine, 1, spec.options, Sequences(spec.model.vocab, spec.seed))
    except (InputError, ExecutionError) as error:
        front_end.send(Failed(str(error)))
        return
    early: list[tuple[int, Any]] = []
    front_end.send(Ready())
    worker = Worker(spec, engine, links, WallClock(_wait_for(Start, inbox, early).epoch_s))
    try:
        with failures_of("while serving"), no_collections():
            worker.serve(inbox, early)
    except ExecutionError as error:
        front_end.send(Failed(str(error)))


def _wait_for(kind: type[Message], inbox: SimpleQueue[tuple[int, Any]], early: list[tuple[int, Any]]) -> Message:
    """The next message of a kind; others are put aside in ``early``."""
    while True:
        sender, message = inbox.get()
        if isinstance(message, kind):
            return message
        if isinstance(message, Goodbye) or (isinstance(message, Lost) and sender == FRONT_END):
            raise SystemExit
        early.append((sender, message))


class Worker(Listener):
    """Serves one instance and asks its agent."""

    def __init__(self, spec: WorkerSpec, engine: DeviceEngine, links: dict[int, Link], clock: WallClock) -> None:
        self._number = spec.number
        self._agent = spec.agent
        self._links = links
        self._clock = clock
        self._messages_sent = 0
        self._stopping = False
        self._executor = executor = LiveExecutor([engine], first=spec.number)
        instance = Instance(spec.engine, max_iterations=1, pool=executor.pool(spec.number))
        self._server = RealtimeServer(spec.number, instance, executor, clock, self, self._report)
        self._departures = Departures(
            self._server,
            engine,
            clock,
            spec.migration,
            spec.model.kv_bytes_per_token,
            self._send,
            self._on_migration_end,
        )
        self._arrivals = Arrivals(self._server, engine, clock, spec.migration, self._send, self._on_joined)

    def serve(self, inbox: SimpleQueue[tuple[int, Any]], early: Sequence[tuple[int, Any]]) -> None:
        """Serve until the front end wants nothing more; ``early`` are messages that came before the start.

        Raises:
            ExecutionError: the device fails.
        """
        self._clock.at(0.0, self._on_stimulus, Started())
        for message in early:
            self._deliver(message)
        self._clock.serve(inbox, self._deliver)

    def _send(self, to: int, message: Any) -> None:
        self._links[to].send(message)

    def _report(self) -> None:
        view = self._server.view
        self._send(FRONT_END, Report(*(getattr(view, name) for name in Report._fields)))

    def _deliver(self, received: tuple[int, Any]) -> None:
        sender, message = received
        match message:
            case Submit(request):
                self._server.submit(request)
            case Deliver(_, speaker, content):
                self._stimulate(Received(speaker, content))
            case Stop(at_once):
                self._stopping = not at_once
                if at_once:
                    self._send_records()
            case Goodbye():
                self._clock.stop()
            case Lost():
                # A peer's end is the front end's to notice; the front end's is the end of the run.
                if sender == FRONT_END:
                    self._clock.stop()
            case _:
                if not (self._departures.handle(message) or self._arrivals.handle(sender, message)):
                    raise AssertionError(f"instance {self._number} does not know {type(message).__name__}")
        if self._stopping and self._departures.idle:
            self._stopping = False
            self._send_records()

    def _send_records(self) -> None:
        pool = self._server.instance.pool
        self._send(
            FRONT_END,
            Records(
                self._server.segments.tobytes(),
                self._departures.rows.tobytes(),
                pool.total - pool.free,
                self._messages_sent,
                self._executor.iterations,
                [] if self._agent is None else self._agent.calls,
            ),
        )

    # What the server tells.

    def on_outcome(self, server: Server, outcome: Outcome) -> None:
        """Tell the front end who has ended, and the agent who has crossed its boundary."""
        for request in outcome.finished:
            self._departures.on_ended(request.index)
            self._send(FRONT_END, Ended(request))
            if server.reports_finished:
                self._stimulate(Finished(request.prompt_tokens, request.cached_tokens, request.output_tokens))
        for request in outcome.crossed:
            context_tokens = server.instance.decoding.context_tokens(request)
            self._stimulate(Crossed(DecodingRequest(request.index, context_tokens, request.cached_tokens)))

    def on_departed(self, server: Server, requests: Sequence[Request]) -> None:
        """Go on with their migrations."""
        for request in requests:
            self._departures.on_departed(request)

    def on_preempted(self, server: Server, requests: Sequence[Request]) -> None:
        """Call off their migrations."""
        for request in requests:
            self._departures.on_preempted(request.index)

    # The agent.

    def _on_stimulus(self, moment: Moment) -> None:
        self._stimulate(moment.value)

    def _stimulate(self, stimulus: Stimulus) -> None:
        if self._agent is not None:
            for instruction in self._agent.handle(stimulus, self._server.view, self._clock.now_s):
                self._carry_out(instruction)

    def _carry_out(self, instruction: Instruction) -> None:
        clock = self._clock
        match instruction:
            case Send(to, message):
                self._messages_sent += 1
                if to == self._number:
                    clock.at(clock.now_s, self._on_stimulus, Received(to, message))
                else:
                    self._send(to if to in self._links else FRONT_END, Deliver(to, self._number, message))
            case SetTimer(delay_s, name):
                clock.at(clock.now_s + delay_s, self._on_stimulus, TimerFired(name))
            case Migrate():
                self._departures.ask(instruction)
            case Watch(boundary_tokens):
                self._server.instance.decoding.watch(boundary_tokens)
                self._server.wake(untimed=True)
            case ReportFinished():
                self._server.reports_finished = True

    def _on_migration_end(self, request: int, destination: int, done: bool, reason: str) -> None:
        # As an event of its own: an agent must not be called while it is still being asked.
        self._clock.at(self._clock.now_s, self._on_stimulus, MigrationEnded(request, destination, done, reason))

    def _on_joined(self, request: int) -> None:
        self._clock.at(self._clock.now_s, self._on_stimulus, Joined(request))
