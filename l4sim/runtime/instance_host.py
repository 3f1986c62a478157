"""One instance and its agent, and what they need of one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from l4sim.engine.protocol import Outcome
from l4sim.engine.request import Request
from l4sim.policies.agent import (
    Agent,
    Crossed,
    Finished,
    Instruction,
    Joined,
    Migrate,
    MigrationEnded,
    ReportFinished,
    Send,
    SetTimer,
    Stimulus,
    TimerFired,
    Watch,
)
from l4sim.policies.views import DecodingRequest
from l4sim.records import MigrationRow, Table
from l4sim.runtime.clock import Clock, Moment
from l4sim.runtime.migration.departures import Departures
from l4sim.runtime.migration.landings import Landings
from l4sim.runtime.migration.messages import Cancel, Grow, MigrationMessage, Reserve
from l4sim.runtime.migration.methods import MigrationRules
from l4sim.runtime.server import Server
from l4sim.runtime.transport import Transport


class InstanceHost:
    """Listens to a server, asks the instance's agent, and carries out what the agent returns."""

    def __init__(
        self,
        server: Server,
        agent: Agent | None,
        clock: Clock,
        transport: Transport,
        rules: MigrationRules,
        migrations: Table[MigrationRow],
        *,
        kv_bytes_per_token: int,
        on_finished: Callable[[Request], None],
        on_orphan: Callable[[Request], None],
        discard: Callable[[int], None],
    ) -> None:
        """``on_finished`` takes requests that have been answered, ``on_orphan`` those that are nowhere any more.

        ``migrations`` gets a row for each migration away from here that has ended; ``discard`` forgets the KV that was
        copied here of a request, by its number.
        """
        self.server = server
        self.departures = Departures(
            server,
            clock,
            transport,
            rules,
            migrations,
            kv_bytes_per_token=kv_bytes_per_token,
            on_end=self._on_migration_end,
            on_orphan=on_orphan,
        )
        self.landings = Landings(server, clock, transport, rules, discard=discard, on_joined=self._on_joined)
        self.kv_bytes_per_token = kv_bytes_per_token
        self._number = server.number
        self._agent = agent
        self._clock = clock
        self._transport = transport
        self._on_finished = on_finished
        self._reports_finished = False
        self._on_empty: Callable[[], None] | None = None
        server.listener = self

    def drain(self, on_empty: Callable[[], None]) -> None:
        """Let nothing more migrate here; ``on_empty`` is called once, when nothing is here any more."""
        self.landings.draining = True
        self._on_empty = on_empty

    def look_whether_empty(self) -> None:
        """Say so if it drains and nothing is here any more."""
        if self._on_empty is not None and self.server.engine.idle and self.departures.idle:
            on_empty, self._on_empty = self._on_empty, None
            on_empty()

    # What the server tells.

    def on_outcome(self, outcome: Outcome) -> None:
        """Requests have ended or crossed the watched boundary."""
        for request in outcome.finished:
            self.departures.on_ended(request.index)
            self._on_finished(request)
            if self._reports_finished:
                self.stimulate(Finished(request.prompt_tokens, request.cached_tokens, request.output_tokens))
        for request in outcome.crossed:
            context_tokens = self.server.engine.context_tokens(request)
            self.stimulate(Crossed(DecodingRequest(request.index, context_tokens, request.cached_tokens)))
        if self._on_empty is not None:
            self.look_whether_empty()

    def on_departed(self, requests: Sequence[Request]) -> None:
        """Requests have left the batch to migrate."""
        for request in requests:
            self.departures.on_departed(request)

    def on_preempted(self, requests: Sequence[Request]) -> None:
        """Requests were preempted."""
        for request in requests:
            self.departures.on_preempted(request.index)

    # Migrations.

    def receive(self, sender: int, message: MigrationMessage) -> None:
        """Take a message about a migration from another instance."""
        if isinstance(message, Reserve | Grow | Cancel):
            self.landings.receive(sender, message)
        else:
            self.departures.receive(message)
            self.look_whether_empty()

    def _on_migration_end(self, request: int, destination: int, done: bool, reason: str) -> None:
        self.stimulate_later(MigrationEnded(request, destination, done, reason))

    def _on_joined(self, request: int) -> None:
        self.stimulate_later(Joined(request))

    # The agent.

    def stimulate(self, stimulus: Stimulus) -> None:
        """Ask the agent now; nobody answers for an instance that is down."""
        if self._agent is None or not self.server.alive:
            return
        for instruction in self._agent.handle(stimulus, self.server.view, self._clock.now_s):
            self._carry_out(instruction)

    def stimulate_later(self, stimulus: Stimulus, delay_s: float = 0.0) -> None:
        """Ask the agent as an event of its own: never while another one, or this one, is being asked."""
        self._clock.at(self._clock.now_s + delay_s, self._on_stimulus, stimulus)

    def _on_stimulus(self, moment: Moment) -> None:
        self.stimulate(moment.value)

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Send(to, message):
                self._transport.tell(self._number, to, message)
            case SetTimer(delay_s, name):
                self.stimulate_later(TimerFired(name), delay_s)
            case Migrate():
                self.departures.ask(instruction)
            case Watch(boundary_tokens):
                self.server.engine.watch(boundary_tokens)
                # A boundary carries no time: crossings are looked for at the end of the iteration under way.
                self.server.wake(untimed=True)
            case ReportFinished():
                self._reports_finished = True
