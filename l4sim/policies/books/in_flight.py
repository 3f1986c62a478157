"""Requests that a router has sent to each instance and that have not ended: its own count of load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from l4sim.policies.views import InstanceView


class InFlight:
    """Counts by position among the instances that take requests; always fresh, whatever views say."""

    def __init__(self, instances: int) -> None:
        self.numbers: list[int] = list(range(instances))
        """Of the instances that take requests, in order."""
        self.counts = [0] * instances
        """Requests in flight, by position in `numbers`."""
        self.sent_ever = [0] * instances
        """Requests sent since the instance has been there, likewise."""
        self.positions = {number: number for number in range(instances)}
        """Positions in `numbers` by number."""
        self._where: dict[int, int] = {}
        """The number of the instance of each request in flight."""

    def rows(self, instances: Sequence[InstanceView]) -> Sequence[int]:
        """The position in `numbers` of each of these instances."""
        if len(instances) == len(self.numbers):
            return range(len(instances))
        return [self.positions[view.instance] for view in instances]

    def of(self, instances: Sequence[InstanceView]) -> list[int]:
        """Requests in flight on each of these instances; to be read, not kept."""
        if len(instances) == len(self.numbers):
            return self.counts
        return [self.counts[row] for row in self.rows(instances)]

    def among(self, instances: Sequence[InstanceView]) -> Mapping[int, int]:
        """The position of each of these instances among them, by its number; to be read, not kept."""
        if len(instances) == len(self.numbers):
            return self.positions
        return {view.instance: position for position, view in enumerate(instances)}

    def send(self, request: int, instance: int) -> int:
        """A request is sent to an instance; returns its position. One that starts over elsewhere is sent again."""
        self.end(request)
        self._where[request] = instance
        row = self.positions[instance]
        self.counts[row] += 1
        self.sent_ever[row] += 1
        return row

    def end(self, request: int) -> int | None:
        """A request has ended; returns the position of its instance, None if that is not known (any more)."""
        row = self.positions.get(self._where.pop(request, -1))
        if row is not None:
            self.counts[row] -= 1
        return row

    def follow(self, numbers: Sequence[int]) -> None:
        """From now on these instances take requests."""
        known = {number: (self.counts[row], self.sent_ever[row]) for number, row in self.positions.items()}
        self.numbers = list(numbers)
        self.positions = {number: row for row, number in enumerate(numbers)}
        self.counts = [known.get(number, (0, 0))[0] for number in numbers]
        self.sent_ever = [known.get(number, (0, 0))[1] for number in numbers]
