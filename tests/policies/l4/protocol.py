"""What the tests of L4's protocol share: small plans, and instructions by kind."""

from __future__ import annotations

from collections.abc import Sequence

from l4sim.policies.agent import Instruction, Migrate, Send, SetTimer
from l4sim.policies.plan import Plan, Stage

THREE_STAGES = Plan((Stage(0, 100, (0,)), Stage(100, 1000, (1, 2)), Stage(1000, 4000, (3,))))


def two_stages(lower: int, upper: int) -> Plan:
    """[0, 100) on the first ``lower`` instances, [100, 1000) on ``upper`` more."""
    return Plan((Stage(0, 100, tuple(range(lower))), Stage(100, 1000, tuple(range(lower, lower + upper)))))


def sent(instructions: Sequence[Instruction]) -> list[Send]:
    return [instruction for instruction in instructions if isinstance(instruction, Send)]


def timers(instructions: Sequence[Instruction]) -> list[SetTimer]:
    return [instruction for instruction in instructions if isinstance(instruction, SetTimer)]


def moved(instructions: Sequence[Instruction]) -> list[int]:
    return [instruction.request for instruction in instructions if isinstance(instruction, Migrate)]
