"""Range refinement: neighbouring stages move their boundary in small steps. **[ours: rule and period are open]**

Each instance reports to the leader of its stage (its first living instance; those that joined come last) how many
requests it has, smoothed over time. A leader sends the leader of the stage below its stage's *pressure*: the mean of
the reports, relative to what the plan expects of the stage. So the comparison is how far each stage is from its plan,
not short requests with long ones. If the lower stage's pressure exceeds the upper one's by more than `HYSTERESIS`, the
lower leader lowers their boundary; in the opposite case it raises it. The step is proportional to the logarithm of the
ratio, at most `MOST_STEP`. A pressure received from above moves the boundary once: without a new one nothing moves.
Stages without living instances are passed over.

Only the lower stage's leader moves a boundary, and it counts the boundary's versions up. A leader that takes over
begins with a version beyond any of its predecessors', and applies it to its own copy too, so that nobody keeps a
boundary that only the dead knew. No step brings a boundary closer than `MARGIN` to its neighbours, so that no range
vanishes. A moved boundary is passed from instance to instance within the stage, and sent to the next stage's leader and
to the front end. Everybody repeats what it knows once a period: that makes up for lost messages, and informs new
leaders. In a large stage only some members report in a period, so that an instance's messages do not grow in number
with its stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from l4sim.policies.agent import FRONT_END, Instruction, OwnView, Send
from l4sim.policies.l4.messages import Boundary, Report, StageState, State, Summary
from l4sim.policies.l4.ranges import Ranges

PERIOD_S = 5.0
SMOOTHING = 0.3
"""Weight of the newest sample in an instance's report."""
REPORTS = 8
"""Members that report to their leader in a period, on average: enough for a mean."""
FAN_OUT = 3
"""Peers that each instance tells news to."""
HYSTERESIS = 1.3
LEAST_PRESSURE = 0.5
"""Where neither stage is half as full as planned, there is nothing to gain."""
IDLE_PRESSURE = 0.1
"""Added to both pressures, so that an idle stage does not make their ratio boundless."""
GAIN = 0.1
MOST_STEP = 0.05
MARGIN = 1.1
TERM = 2**20
"""Versions that one leader can count: the next one's are all higher."""
GENERATION = 2**50
"""Versions under one plan: the next plan's are all higher."""


class Refinement:
    """One instance's part: member of its stage, and perhaps its leader."""

    def __init__(
        self,
        instance: int,
        ranges: Ranges,
        planned_batches: Sequence[float],
        random: np.random.Generator,
        generation: int = 0,
    ) -> None:
        """``planned_batches``: requests in flight per instance that the plan expects, by stage."""
        self._instance = instance
        self._ranges = ranges
        self._random = random
        self._batch: float | None = None
        self.adopt(planned_batches, generation)

    def adopt(self, planned_batches: Sequence[float], generation: int = 0) -> None:
        """Begin under a plan that ``ranges`` has taken over."""
        self._stage = self._ranges.stage_of_instance(self._instance)
        self._first_version = generation * GENERATION + self._ranges.turn(self._instance) * TERM
        """As a leader: all members before this one have gone by then."""
        self._planned = [max(batch, 0.5) for batch in planned_batches]
        self._reports: dict[int, Report | State] = {}
        """What has come in this period."""
        self._above: Summary | StageState | None = None
        """What the stage above has told, until it has been acted on."""

    def sample(self, own: OwnView) -> None:
        """Note the instance's own load."""
        batch = own.running + own.waiting
        self._batch = batch if self._batch is None else self._batch + SMOOTHING * (batch - self._batch)

    def period(self) -> Sequence[Instruction]:
        """What a member and a leader do once a period."""
        repeated = [boundary for boundary in self._own_boundaries() if boundary.version]
        instructions: list[Instruction] = [Send(peer, b) for peer in self._some_peers(1) for b in repeated]
        leader = self._ranges.leader(self._stage)
        if leader == self._instance:
            instructions += self._lead()
        elif leader is not None and self._random.random() * len(self._ranges.members(self._stage)) < REPORTS:
            instructions.append(Send(leader, self._report()))
        return instructions

    def _report(self) -> Report | State:
        return Report(self._batch or 0.0)

    def _summary(self, reports: Sequence[Any]) -> Summary | StageState:
        """What there is to tell of the stage; at least the leader's own report is there."""
        batch = sum(report.batch for report in reports) / len(reports)
        return Summary(self._stage, batch / self._planned[self._stage])

    def _lead(self) -> Sequence[Instruction]:
        living = self._ranges.members(self._stage)
        reports = [self._report(), *(report for member, report in self._reports.items() if member in living)]
        self._reports.clear()
        summary = self._summary(reports)
        instructions: list[Instruction] = []
        below, above = (self._ranges.neighbour(self._stage, step) for step in (-1, 1))
        if below is not None:
            instructions += self._to_leader(below, summary)
        if above is not None:
            if self._move(summary, above):
                instructions += self.spread(self._ranges.boundary(self._stage))
            boundary = self._ranges.boundary(self._stage)
            if boundary.version < self._first_version:
                boundary = boundary._replace(version=self._first_version)
                self._ranges.apply(boundary)
            if boundary.version:
                instructions += [*self._to_leader(above, boundary), Send(FRONT_END, boundary)]
        return instructions

    def _step(self, here: Any, above: Any) -> float:
        """By what share the boundary is to fall; 0 for not at all."""
        if max(here.pressure, above.pressure) < LEAST_PRESSURE:
            return 0.0
        ratio = (here.pressure + IDLE_PRESSURE) / (above.pressure + IDLE_PRESSURE)
        return 0.0 if 1 / HYSTERESIS < ratio < HYSTERESIS else GAIN * math.log(ratio)

    def _move(self, summary: Summary | StageState, above: int) -> bool:
        told, self._above = self._above, None
        step = 0.0 if told is None else max(-MOST_STEP, min(MOST_STEP, self._step(summary, told)))
        if not step:
            return False
        lo, hi = self._ranges.range_of(self._stage)
        _, top = self._ranges.range_of(above)
        target = round(hi * (1 - step))
        if step > 0:
            moved = min(hi, max(target, math.ceil(lo * MARGIN), 1))
        else:
            moved = max(hi, min(target, math.floor(top / MARGIN)))
        version = max(self._ranges.boundary(self._stage).version, self._first_version) + 1
        return moved != hi and self._ranges.apply(Boundary(self._stage, version, moved))

    def spread(self, news: Boundary) -> Sequence[Instruction]:
        """Pass news of a boundary on to a few peers of the own stage."""
        return [Send(peer, news) for peer in self._some_peers(FAN_OUT)]

    def _some_peers(self, count: int) -> Sequence[int]:
        peers = [member for member in self._ranges.members(self._stage) if member != self._instance]
        if len(peers) <= count:
            return peers
        return [peers[i] for i in self._random.choice(len(peers), count, replace=False)]

    def _own_boundaries(self) -> Sequence[Boundary]:
        """The lower and the upper end of the own stage, as far as they can move."""
        stages = range(max(self._stage - 1, 0), min(self._stage + 1, len(self._ranges) - 1))
        return [self._ranges.boundary(stage) for stage in stages]

    def _to_leader(self, stage: int, message: Summary | StageState | Boundary) -> Sequence[Instruction]:
        leader = self._ranges.leader(stage)
        return () if leader is None else (Send(leader, message),)

    def reported(self, sender: int, report: Report | State) -> None:
        """What a member tells."""
        self._reports[sender] = report

    def summarised(self, summary: Summary | StageState) -> None:
        """What the leader of the stage above tells."""
        if summary.stage == self._ranges.neighbour(self._stage, 1):
            self._above = summary
