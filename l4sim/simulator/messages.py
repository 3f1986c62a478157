"""Agents in simulated time: their stimuli, the messages between them, their timers, and what they ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from l4sim.errors import InputError
from l4sim.policies.agent import (
    COORDINATOR,
    FRONT_END,
    Agent,
    Coordinator,
    Instruction,
    Migrate,
    Received,
    ReportFinished,
    Send,
    SetTimer,
    Started,
    Stimulus,
    TimerFired,
    Watch,
)
from l4sim.policies.routers import Listening, Router
from l4sim.simulator.clock import Clock, Moment
from l4sim.simulator.server import Server


@dataclass(frozen=True, slots=True)
class Network:
    """How messages between agents travel. Faults are for testing protocols; by default there are none.

    Raises:
        InputError: a probability outside [0, 1], or a negative time.
    """

    latency_s: float = 0.5e-3
    """One way."""
    jitter_s: float = 0.0
    """Added to the latency, uniformly from 0 to this: messages may overtake one another."""
    loss: float = 0.0
    """Probability that a message is lost."""
    duplication: float = 0.0
    """Probability that a message arrives twice."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("loss", "duplication"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"network {name} must be from 0 to 1, not {getattr(self, name)}")
        for name in ("latency_s", "jitter_s"):
            if getattr(self, name) < 0:
                raise InputError(f"network {name} must not be negative, it is {getattr(self, name)}")


class AgentHost:
    """Calls agents with their stimuli and carries out what they return."""

    def __init__(
        self,
        clock: Clock,
        network: Network,
        servers: Sequence[Server],
        agents: Sequence[Agent],
        coordinator: Coordinator | None,
        router: Router,
        migrate: Callable[[Server, Migrate], None],
    ) -> None:
        self.messages_sent = 0
        self._clock = clock
        self._network = network
        self._random = np.random.default_rng(network.seed)
        self._servers = servers
        self._agents = agents
        self._coordinator = coordinator
        self._router = router
        self._migrate = migrate

    def start(self) -> None:
        """Give every agent its first stimulus."""
        for server in self._servers if self._agents else ():
            self.stimulate(server.number, Started())
        if self._coordinator is not None:
            self.stimulate(COORDINATOR, Started())

    def stimulate(self, address: int, stimulus: Stimulus) -> None:
        """Call the agent at an address now; nobody answers for an instance that is down."""
        now_s = self._clock.now_s
        if address == FRONT_END:
            if isinstance(stimulus, Received) and isinstance(self._router, Listening):
                self._router.receive(stimulus.sender, stimulus.message, now_s)
            return
        if address == COORDINATOR:
            assert self._coordinator is not None, "a message to a coordinator that the policy does not have"
            instructions = self._coordinator.handle(stimulus, now_s)
        elif not self._agents or not self._servers[address].alive:
            return
        else:
            instructions = self._agents[address].handle(stimulus, self._servers[address].view, now_s)
        for instruction in instructions:
            self._carry_out(address, instruction)

    def stimulate_later(self, address: int, stimulus: Stimulus, delay_s: float = 0.0) -> None:
        """Call the agent at an address as an event of its own: never while another one is being asked."""
        self._clock.at(self._clock.now_s + delay_s, self._on_stimulus, (address, stimulus))

    def everybody(self) -> Sequence[int]:
        """The addresses of all agents, the coordinator's included."""
        agents = [server.number for server in self._servers if self._agents and server.alive]
        return agents if self._coordinator is None else [*agents, COORDINATOR]

    def _on_stimulus(self, moment: Moment) -> None:
        self.stimulate(*moment.value)

    def _carry_out(self, address: int, instruction: Instruction) -> None:
        match instruction:
            case Send(to, message):
                self._send(address, to, message)
            case SetTimer(delay_s, name):
                self.stimulate_later(address, TimerFired(name), delay_s)
            case Migrate():
                self._migrate(self._servers[address], instruction)
            case Watch(boundary_tokens):
                self._servers[address].instance.decoding.watch(boundary_tokens)
                # A boundary carries no time either: crossings are looked for at the end of the iteration under way.
                self._servers[address].wake(untimed=True)
            case ReportFinished():
                self._servers[address].reports_finished = True

    def _send(self, sender: int, to: int, message: object) -> None:
        network = self._network
        self.messages_sent += 1
        copies = 1
        if network.loss or network.duplication:
            copies = int(self._random.random() >= network.loss) * (1 + int(self._random.random() < network.duplication))
        for _ in range(copies):
            jitter_s = network.jitter_s * self._random.random() if network.jitter_s else 0.0
            self.stimulate_later(to, Received(sender, message), network.latency_s + jitter_s)
