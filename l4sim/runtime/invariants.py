"""What must hold of a fleet between two events; each is told by its number in `docs/invariants.md`."""

from __future__ import annotations

from collections.abc import Sequence

from l4sim.runtime.closed_loop import ClosedLoop
from l4sim.runtime.instance_host import InstanceHost


def check_fleet(hosts: Sequence[InstanceHost], in_flight: int, lost: int) -> None:
    """Check what holds of all instances together, between two events.

    ``in_flight`` requests have been sent to an instance and have not ended; ``lost`` of them were on an instance that
    died, which nobody has noticed yet. Raises AssertionError, saying what does not hold.
    """
    there = on_the_way = 0
    for host in hosts:
        # At every event of every instance: one pass, in plain numbers.
        server, departures = host.server, host.departures
        on_the_way += departures.forwarded
        if server.alive:
            there += server.engine.requests
            taken = departures.moving + host.landings.expected
            if server.transfers != taken:
                raise AssertionError(
                    f"R3: instance {server.number} counts {server.transfers} migrations, it takes part in {taken}"
                )
    if there + on_the_way + lost != in_flight:
        raise AssertionError(
            f"R2: {in_flight} requests are in flight: {there} on instances, {on_the_way} on the way, {lost} lost"
        )


def check_loop(loop: ClosedLoop) -> None:
    """Check that a closed loop has no more under way than it may, and sends whenever it may.

    Raises AssertionError, saying what does not hold.
    """
    if loop.under_way > loop.concurrency or (loop.unsent and loop.under_way < loop.concurrency):
        raise AssertionError(
            f"R9: {loop.under_way} sessions are under way and {loop.unsent} wait, of {loop.concurrency} at a time"
        )
