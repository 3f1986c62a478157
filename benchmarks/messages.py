"""What L4's agents say to one another against the size of the cluster, at equal load per instance.

    python -m benchmarks.messages

Decentralised must mean that what an instance sends and hears does not grow with the cluster. Handovers are told apart:
their messages (asks, offers and declines) go with the requests that pass through an instance, of which a small stage of
a large cluster sees many; all others are upkeep. Messages are counted where they are sent; the front end's are not any
instance's. Bytes are an estimate: `ENVELOPE_BYTES` for the headers of a UDP datagram, sender and type, and
`FIELD_BYTES` for each field.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from l4sim.experiment import Options, compare, resolve
from l4sim.policies.agent import Agent, Instruction, OwnView, Send, Stimulus
from l4sim.policies.l4.messages import Ask, Decline, Offer
from l4sim.policies.policy import Policy, Setting
from l4sim.policies.registry import build_policy
from l4sim.workload.synth.named import synthesize_named

INSTANCES = (8, 16, 32, 64, 128, 256)
RATE_PER_INSTANCE = 0.9
DURATION_S = 60.0
ENVELOPE_BYTES = 64
FIELD_BYTES = 8
OF_HANDOVERS = (Ask, Offer, Decline)


class Counted:
    """An agent whose messages are counted by type, by sender and by receiver."""

    def __init__(self, agent: Agent, instance: int, traffic: Traffic) -> None:
        self._agent = agent
        self._instance = instance
        self._traffic = traffic

    def handle(self, stimulus: Stimulus, own: OwnView, now_s: float) -> Sequence[Instruction]:
        """React as the agent does."""
        instructions = self._agent.handle(stimulus, own, now_s)
        for instruction in instructions:
            if isinstance(instruction, Send):
                self._traffic.add(self._instance, instruction)
        return instructions


class Traffic:
    """Messages and bytes of one run."""

    def __init__(self) -> None:
        self.messages_by_type: Counter[str] = Counter()
        self.messages_by_instance: Counter[int] = Counter()
        """Sent and received."""
        self.upkeep_by_instance: Counter[int] = Counter()
        """Those that are not about a handover."""
        self.bytes_by_instance: Counter[int] = Counter()

    def add(self, sender: int, send: Send) -> None:
        """Count one message at both ends."""
        self.messages_by_type[type(send.message).__name__] += 1
        for end in (sender, send.to):
            self.messages_by_instance[end] += 1
            self.upkeep_by_instance[end] += not isinstance(send.message, OF_HANDOVERS)
            self.bytes_by_instance[end] += message_bytes(send.message)


def message_bytes(message: tuple[object, ...]) -> int:
    """An estimate of a message's size on the wire."""
    return ENVELOPE_BYTES + FIELD_BYTES * len(message)


@dataclass(frozen=True, slots=True)
class Row:
    """One cluster's traffic per second."""

    instances: int
    stage_sizes: tuple[int, ...]
    mean_messages_per_s: float
    """Per instance, sent and received."""
    most_messages_per_s: float
    """The busiest instance's."""
    most_upkeep_per_s: float
    """The busiest instance's, handovers' left out."""
    most_handovers_per_s: float
    """Handovers done that the busiest instance takes part in."""
    per_handover: float
    """Messages of handovers over handovers done, in the cluster; NaN without any."""
    mean_bytes_per_s: float
    most_bytes_per_s: float
    sent_per_s: dict[str, float]
    """By type, per instance."""


def measure(instances: int) -> Row:
    """Replay a long-context mix at a rate in proportion to the instances."""
    trace = synthesize_named(
        lengths="long-context-mix",
        duration_s=DURATION_S,
        max_model_len=131_072,
        parameters={"rate_per_s": RATE_PER_INSTANCE * instances},
    )
    traffic = Traffic()

    def counted(setting: Setting) -> Policy:
        policy = build_policy("l4:across", setting)
        agents = tuple(Counted(agent, number, traffic) for number, agent in enumerate(policy.agents))
        return replace(policy, agents=agents)

    [run] = compare(trace, [("counted", counted)], resolve(Options(instances=instances)))
    assert run.plan is not None
    seconds = float((run.requests["arrival_s"] + run.requests["e2e_s"]).max())
    messages = [traffic.messages_by_instance[n] / seconds for n in range(instances)]
    busiest = messages.index(max(messages))
    handovers = run.migrations.query("kind == 'handover' and status == 'done'")
    of_busiest = int(((handovers["source"] == busiest) | (handovers["destination"] == busiest)).sum())
    about_them = sum(traffic.messages_by_type[kind.__name__] for kind in OF_HANDOVERS)
    sizes = [traffic.bytes_by_instance[n] / seconds for n in range(instances)]
    return Row(
        instances,
        tuple(len(stage.instances) for stage in run.plan),
        sum(messages) / instances,
        max(messages),
        max(traffic.upkeep_by_instance.values()) / seconds,
        of_busiest / seconds,
        about_them / len(handovers) if len(handovers) else float("nan"),
        sum(sizes) / instances,
        max(sizes),
        {name: count / seconds / instances for name, count in sorted(traffic.messages_by_type.items())},
    )


def main() -> None:
    """Print a row per size of cluster."""
    print(
        "instances  stages' sizes              messages/s: mean   most  upkeep"
        "  handovers/s: most  messages per handover   bytes/s: mean    most"
        "   sent/s by type"
    )
    for instances in INSTANCES:
        row = measure(instances)
        sizes = "+".join(map(str, row.stage_sizes))
        types = ", ".join(f"{name} {rate:.2f}" for name, rate in row.sent_per_s.items())
        print(
            f"{row.instances:9d}  {sizes:26s} {row.mean_messages_per_s:16.1f} {row.most_messages_per_s:6.1f} "
            f"{row.most_upkeep_per_s:7.1f} {row.most_handovers_per_s:18.1f} {row.per_handover:22.1f} "
            f"{row.mean_bytes_per_s:15.0f} {row.most_bytes_per_s:7.0f}   {types}",
            flush=True,
        )


if __name__ == "__main__":
    main()
