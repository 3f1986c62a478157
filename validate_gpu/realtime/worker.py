"""One process: a live instance, its agent, and its connections to the front end and to its peers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, TypeVar

from l4sim.engine.config import EngineConfig
from l4sim.engine.request import Request
from l4sim.engine.rules import engine_named
from l4sim.errors import InputError
from l4sim.policies.agent import FRONT_END, Received, Started
from l4sim.records import migration_table
from l4sim.runtime.executor import ExecutionError
from l4sim.runtime.instance_host import InstanceHost
from l4sim.runtime.migration.methods import MigrationRules
from l4sim.specs.model import Model
from validate_gpu.decisions import RecordingAgent
from validate_gpu.live.build import LiveOptions, build_engine
from validate_gpu.live.clock import no_collections
from validate_gpu.live.device import failures_of
from validate_gpu.live.engine import DeviceEngine
from validate_gpu.live.executor import LiveExecutor
from validate_gpu.live.sequences import Sequences
from validate_gpu.realtime.clock import WallClock
from validate_gpu.realtime.server import RealtimeServer
from validate_gpu.realtime.transport import SocketTransport
from validate_gpu.realtime.wire import (
    Deliver,
    Ended,
    Failed,
    Forward,
    Goodbye,
    Handover,
    Kv,
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
    engine_rules: str
    """Whose scheduling rules it follows: `l4sim.engine.rules`."""
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


class Worker:
    """Serves one instance, and its agent if it has one."""

    def __init__(self, spec: WorkerSpec, engine: DeviceEngine, links: Mapping[int, Link], clock: WallClock) -> None:
        self._number = spec.number
        self._agent = spec.agent
        self._links = links
        self._clock = clock
        self._stopping = False
        self._executor = executor = LiveExecutor([engine], first=spec.number)
        pool = executor.pool(spec.number)
        rules = engine_named(spec.engine_rules)(spec.engine, max_iterations=1, pool=pool)
        self._server = RealtimeServer(spec.number, rules, executor, clock, self._report)
        self._migrations = migration_table()
        self._transport = SocketTransport(spec.number, engine, links, self._stimulate_later)
        self._host = InstanceHost(
            self._server,
            spec.agent,
            clock,
            self._transport,
            spec.migration,
            self._migrations,
            kv_bytes_per_token=spec.model.kv_bytes_per_token,
            on_finished=lambda request: self._send(FRONT_END, Ended(request)),
            on_orphan=_no_orphans,
            discard=pool.discard,
        )

    def serve(self, inbox: SimpleQueue[tuple[int, Any]], early: Sequence[tuple[int, Any]]) -> None:
        """Serve until the front end wants nothing more; ``early`` are messages that came before the start.

        Raises:
            ExecutionError: the device fails.
        """
        self._clock.at(0.0, lambda _: self._host.stimulate(Started()))
        for message in early:
            self._deliver(message)
        self._clock.serve(inbox, self._deliver)

    def _send(self, to: int, message: Any) -> None:
        self._links[to].send(message)

    def _stimulate_later(self, received: Received) -> None:
        self._host.stimulate_later(received)

    def _report(self) -> None:
        view = self._server.view
        self._send(FRONT_END, Report(*(getattr(view, name) for name in Report._fields)))

    def _deliver(self, received: tuple[int, Any]) -> None:
        sender, message = received
        match message:
            case Submit(request):
                self._server.submit(request)
            case Deliver(_, speaker, content):
                self._host.stimulate(Received(speaker, content))
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
                deliver_migration(self._host, self._transport, sender, message)
        if self._stopping and self._host.departures.idle:
            self._stopping = False
            self._send_records()

    def _send_records(self) -> None:
        self._send(
            FRONT_END,
            Records(
                self._server.segments.numbers.tobytes(),
                list(self._migrations),
                self._server.engine.kv_blocks_used,
                self._transport.messages_sent,
                self._executor.iterations,
                [] if self._agent is None else self._agent.calls,
            ),
        )


def deliver_migration(host: InstanceHost, transport: SocketTransport, sender: int, message: Any) -> None:
    """Give a message about a migration to whom it concerns: KV is the transport's, the rest the host's."""
    match message:
        case Kv():
            transport.take(sender, message)
        case Handover(request):
            transport.take_over(message)
            host.landings.land(sender, request)
        case Forward(request, sampled):
            transport.take_along(request.index, sampled)
            host.landings.queue(sender, request)
        case _:
            transport.hear(message)
            host.receive(sender, message)


def _no_orphans(request: Request) -> None:
    raise AssertionError(f"request {request.index} has come back, though no instance has died")
