"""Instances that die: which, and when."""

from __future__ import annotations

import re
from typing import NamedTuple

from l4sim.errors import InputError

_ONE = re.compile(r"(\d+)@(\d+(?:\.\d*)?|\.\d+)s?")


class Failure(NamedTuple):
    """An instance dies for good."""

    instance: int
    time_s: float


def parse_failures(text: str, instances: int) -> tuple[Failure, ...]:
    """Failures written as ``3@120s``, several separated by commas, for a cluster of so many instances.

    Raises:
        InputError: not written so, no such instance, or one that dies twice.
    """
    failures: dict[int, Failure] = {}
    for part in text.split(","):
        match = _ONE.fullmatch(part.strip())
        if match is None:
            raise InputError(f"--fail '{part.strip()}': accepted is INSTANCE@SECONDS, such as 3@120s")
        instance = int(match[1])
        if instance >= instances:
            raise InputError(f"--fail {part.strip()}: no instance {instance}; accepted are 0 to {instances - 1}")
        if instance in failures:
            raise InputError(f"--fail {part.strip()}: instance {instance} dies twice; accepted is one time for each")
        failures[instance] = Failure(instance, float(match[2]))
    return tuple(failures.values())
