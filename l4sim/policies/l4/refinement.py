"""Range refinement: neighbouring stages move their shared boundary in small steps. **[ours: rule and period are open]**

Each instance tells the leader of its stage (its lowest living instance) how many requests it has, smoothed; a leader
tells the leader below its stage's *pressure*: the mean over its instances, relative to what the plan expected of the
stage. So what is compared is how far each stage is from its plan, not short requests with long ones. If the lower
stage's pressure exceeds the upper one's by more than `HYSTERESIS`, the lower leader lowers their boundary, and the
other way round, by a step in proportion to the logarithm of the ratio, `MOST_STEP` at most.

The lower stage's leader alone moves a boundary, and counts its versions up; it repeats the current one every period, so
that a lost message is made up for. A boundary keeps `MARGIN` from its neighbours, so that no range can vanish.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from l4sim.policies.agent import FRONT_END, Instruction, OwnView, Send
from l4sim.policies.l4.messages import Boundary, Report, Summary
from l4sim.policies.l4.ranges import Ranges

PERIOD_S = 5.0
SMOOTHING = 0.3
"""Weight of the newest sample in an instance's report."""
HYSTERESIS = 1.3
LEAST_PRESSURE = 0.5
"""Where neither stage is half as full as planned, there is nothing to gain."""
GAIN = 0.1
MOST_STEP = 0.05
MARGIN = 1.1


class Refinement:
    """One instance's part: member of its stage, and perhaps its leader."""

    def __init__(self, instance: int, ranges: Ranges, planned_batches: Sequence[float]) -> None:
        """``planned_batches``: requests in flight per instance that the plan expects, by stage."""
        self._instance = instance
        self._ranges = ranges
        self._planned = [max(batch, 0.5) for batch in planned_batches]
        self._batch: float | None = None
        self._reports: dict[int, float] = {}
        self._above: float | None = None

    def sample(self, own: OwnView) -> None:
        """Note the instance's own load."""
        batch = own.running + own.waiting
        self._batch = batch if self._batch is None else self._batch + SMOOTHING * (batch - self._batch)

    def period(self) -> Sequence[Instruction]:
        """What a member and a leader do once a period."""
        stage = self._ranges.stage_of_instance(self._instance)
        leader = self._ranges.leader(stage)
        batch = self._batch or 0.0
        if leader != self._instance:
            return () if leader is None else (Send(leader, Report(batch)),)
        self._reports[self._instance] = batch
        members = self._ranges.members(stage)
        reports = [self._reports[member] for member in members if member in self._reports]
        pressure = sum(reports) / len(reports) / self._planned[stage]
        instructions: list[Instruction] = []
        below = self._ranges.leader(stage - 1) if stage else None
        if below is not None:
            instructions.append(Send(below, Summary(stage, pressure)))
        if stage < len(self._ranges) - 1:
            self._move(stage, pressure)
            instructions += self._announce(stage)
        return instructions

    def _move(self, stage: int, pressure: float) -> None:
        above = self._above
        if above is None or max(pressure, above) < LEAST_PRESSURE:
            return
        ratio = (pressure + 0.1) / (above + 0.1)
        if 1 / HYSTERESIS < ratio < HYSTERESIS:
            return
        lo, hi = self._ranges.range_of(stage)
        _, top = self._ranges.range_of(stage + 1)
        step = max(-MOST_STEP, min(MOST_STEP, GAIN * math.log(ratio)))
        moved = round(hi * (1 - step))
        moved = min(max(moved, math.ceil(lo * MARGIN), 1), math.floor(top / MARGIN))
        if moved != hi:
            self._ranges.apply(Boundary(stage, self._ranges.version(stage) + 1, moved))

    def _announce(self, stage: int) -> list[Instruction]:
        version = self._ranges.version(stage)
        if not version:
            return []
        boundary = Boundary(stage, version, self._ranges.range_of(stage)[1])
        peers = (*self._ranges.members(stage), *self._ranges.members(stage + 1))
        return [Send(peer, boundary) for peer in (*peers, FRONT_END) if peer != self._instance]

    def reported(self, sender: int, report: Report) -> None:
        """A member's load."""
        self._reports[sender] = report.batch

    def summarised(self, summary: Summary) -> None:
        """The pressure of the stage above."""
        if summary.stage == self._ranges.stage_of_instance(self._instance) + 1:
            self._above = summary.pressure
