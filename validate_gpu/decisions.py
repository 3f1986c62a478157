"""Recording a policy's decisions in a live run, and replaying them: does a fresh policy decide the same?

What the policy reads of its views is recorded with each decision. A replay shows a policy that has not run yet the same
readings, stimuli and messages in the same order, and compares its decisions with the recorded ones.

Equal decisions mean that a policy knows nothing but its views, its stimuli and its seed: what it decided on live
instances is what it decides in a simulation that shows it the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from l4sim.policies.agent import COORDINATOR, Agent, Coordinator, FleetStimulus, Instruction, OwnView, Stimulus
from l4sim.policies.policy import Policy
from l4sim.policies.routers import Following, Hearing, Listening, Router
from l4sim.policies.views import InstanceView, RequestView

Read = dict[str | tuple[Any, ...], Any]
"""What was read of a view: by attribute, or by method and arguments."""

_METHODS = ("decoding", "queued", "find")
_TOLD = ("ended", "published", "tick", "cache_changed")
"""Methods by which a router hears, beside `receive`, `follow` and `hear`."""


class Routed(NamedTuple):
    """A call of the router's ``route``: it has chosen an instance."""

    request: RequestView
    reads: tuple[Read, ...]
    """Of each instance's view, by position."""
    position: int
    """Of the chosen instance."""


class Heard(NamedTuple):
    """A call of the router's ``receive``: it was sent a message."""

    sender: int
    message: Any
    now_s: float


class Followed(NamedTuple):
    """The router was told which instances take requests."""

    numbers: tuple[int, ...]


class Noticed(NamedTuple):
    """The router was told what has become of an instance."""

    change: FleetStimulus
    now_s: float


class Told(NamedTuple):
    """A call of one of the router's other methods, which return nothing: what it may hear besides."""

    method: str
    arguments: tuple[Any, ...]


class Asked(NamedTuple):
    """A call of the ``handle`` of an agent, or of the coordinator: it has answered a stimulus."""

    address: int
    stimulus: Stimulus
    read: Read
    """Of its own view; the coordinator has none."""
    now_s: float
    instructions: tuple[Instruction, ...]


Call = Routed | Heard | Followed | Noticed | Told | Asked
"""One call of a part of a policy, with what it was given and what it returned."""


@dataclass(frozen=True, slots=True)
class DecisionReplay:
    """How many recorded decisions a fresh policy decided alike."""

    routed: int
    stimuli: int
    """Answered by agents and the coordinator."""
    instructions: int
    """Returned to them."""
    differing: int
    first_difference: str
    """Empty where there is none."""

    @property
    def decisions(self) -> int:
        """All that were compared: requests routed and stimuli answered."""
        return self.routed + self.stimuli

    @property
    def equal_pct(self) -> float:
        """Equal decisions of all, in percent; 100 where there are none."""
        return 100 * (1 - self.differing / self.decisions) if self.decisions else 100.0


def record_decisions(policy: Policy, calls: list[Call]) -> Policy:
    """The same policy, which appends every call of its parts to ``calls``, in order."""
    return replace(
        policy,
        router=_RecordingRouter(policy.router, calls),
        agents=tuple(RecordingAgent(agent, number, calls) for number, agent in enumerate(policy.agents)),
        coordinator=None if policy.coordinator is None else _RecordingCoordinator(policy.coordinator, calls),
    )


def replay_decisions(calls: Iterable[Call], fresh: Policy) -> DecisionReplay:
    """Repeat recorded calls on a policy that has not run yet, in their order, and compare what it decides."""
    routed = stimuli = instructions = differing = 0
    first = ""
    for call in calls:
        match call:
            case Heard(sender, message, now_s):
                if isinstance(fresh.router, Listening):
                    fresh.router.receive(sender, message, now_s)
                continue
            case Followed(numbers):
                if isinstance(fresh.router, Following):
                    fresh.router.follow(numbers)
                continue
            case Noticed(change, now_s):
                if isinstance(fresh.router, Hearing):
                    fresh.router.hear(change, now_s)
                continue
            case Told(method, arguments):
                getattr(fresh.router, method)(*arguments)
                continue
            case Routed(position=decided):
                routed += 1
            case Asked(instructions=decided):
                stimuli += 1
                instructions += len(decided)
        try:
            again = _ask(call, fresh)
        except _NotReadError as error:
            again = str(error)
        if again != decided:
            differing += 1
            first = first or f"{_described(call)}: {decided} live, {again} replayed"
    return DecisionReplay(routed, stimuli, instructions, differing, first)


def _ask(call: Routed | Asked, fresh: Policy) -> Any:
    """What the fresh policy decides."""
    if isinstance(call, Routed):
        return fresh.router.route(call.request, [cast(InstanceView, _Recalled(read)) for read in call.reads])
    if call.address == COORDINATOR:
        assert fresh.coordinator is not None, "a coordinator was asked that the policy does not have"
        return tuple(fresh.coordinator.handle(call.stimulus, call.now_s))
    own = cast(OwnView, _Recalled(call.read))
    return tuple(fresh.agents[call.address].handle(call.stimulus, own, call.now_s))


def _described(call: Routed | Asked) -> str:
    if isinstance(call, Routed):
        return f"request {call.request.request}"
    who = "the coordinator" if call.address == COORDINATOR else f"agent {call.address}"
    return f"{who} at {call.now_s:g} s on {call.stimulus}"


class RecordingAgent:
    """An agent whose answers are recorded."""

    def __init__(self, agent: Agent, number: int, calls: list[Call]) -> None:
        self.calls = calls
        self._agent = agent
        self._number = number

    def handle(self, stimulus: Stimulus, own: OwnView, now_s: float) -> Sequence[Instruction]:
        """Answer as the agent does."""
        reading = _Reading(own)
        instructions = tuple(self._agent.handle(stimulus, cast(OwnView, reading), now_s))
        self.calls.append(Asked(self._number, stimulus, reading.read, now_s, instructions))
        return instructions


class _RecordingCoordinator:
    def __init__(self, coordinator: Coordinator, calls: list[Call]) -> None:
        self._calls = calls
        self._coordinator = coordinator

    def handle(self, stimulus: Stimulus, now_s: float) -> Sequence[Instruction]:
        instructions = tuple(self._coordinator.handle(stimulus, now_s))
        self._calls.append(Asked(COORDINATOR, stimulus, {}, now_s, instructions))
        return instructions


class _RecordingRouter:
    def __init__(self, router: Router, calls: list[Call]) -> None:
        self._calls = calls
        self._router = router

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        readings = [_Reading(view) for view in instances]
        position = self._router.route(request, cast(Sequence[InstanceView], readings))
        self._calls.append(Routed(request, tuple(reading.read for reading in readings), position))
        return position

    def receive(self, sender: int, message: Any, now_s: float) -> None:
        if isinstance(self._router, Listening):
            self._router.receive(sender, message, now_s)
            self._calls.append(Heard(sender, message, now_s))

    def follow(self, numbers: Sequence[int]) -> None:
        if isinstance(self._router, Following):
            self._router.follow(numbers)
            self._calls.append(Followed(tuple(numbers)))

    def hear(self, change: FleetStimulus, now_s: float) -> None:
        if isinstance(self._router, Hearing):
            self._router.hear(change, now_s)
            self._calls.append(Noticed(change, now_s))

    def __getattr__(self, name: str) -> Any:
        """What else the router has; calls of its methods are recorded."""
        found = getattr(self._router, name)
        if name not in _TOLD:
            return found

        def tell(*arguments: Any) -> None:
            found(*arguments)
            self._calls.append(Told(name, arguments))

        return tell


class _Reading:
    """A view that keeps what is read of it: views change in place, so that it cannot be read again later."""

    def __init__(self, view: object) -> None:
        self.read: Read = {}
        self._view = view

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._view, name)
        if name not in _METHODS:
            self.read[name] = value
            return value

        def answer(*arguments: Any) -> Any:
            self.read[name, *arguments] = value(*arguments)
            return self.read[name, *arguments]

        return answer


class _NotReadError(Exception):
    """A replayed policy reads what the live one did not."""


class _Recalled:
    """A view as a replayed policy sees it: it answers what was read of the live one, and nothing else."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def __getattr__(self, name: str) -> Any:
        return (lambda *arguments: self._known((name, *arguments))) if name in _METHODS else self._known(name)

    def _known(self, key: str | tuple[Any, ...]) -> Any:
        if key not in self._read:
            raise _NotReadError(f"reads {key}, which the live policy did not")
        return self._read[key]
