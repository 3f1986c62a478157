"""Two realtime instances in one process, on a clock that ticks when it is read, with messages that take their time."""

from __future__ import annotations

import itertools
from queue import SimpleQueue
from typing import Any

from l4sim.engine.instance import Instance
from l4sim.engine.request import Request
from l4sim.policies.agent import Migrate
from l4sim.simulator.migration import KINDS, REASONS, STATUSES, MigrationRules
from l4sim.simulator.server import Listener
from tests.validate_gpu.live.small import MODEL, engine_config, transformer
from validate_gpu.live.engine import DeviceEngine, torch_kernels
from validate_gpu.live.executor import LiveExecutor
from validate_gpu.live.sequences import Sequences
from validate_gpu.realtime.arrivals import Arrivals
from validate_gpu.realtime.clock import WallClock
from validate_gpu.realtime.departures import Departures
from validate_gpu.realtime.server import RealtimeServer

TICK_S = 1e-4


class Side(Listener):
    """One instance, and what happened on it."""

    def __init__(self, number: int, pair: Pair, config: Any, rules: MigrationRules) -> None:
        self.pair = pair
        self.engine = DeviceEngine(transformer(), config, 1, torch_kernels(), Sequences(MODEL.vocab, 0))
        executor = LiveExecutor([self.engine], first=number)
        self.instance = Instance(config, max_iterations=1, pool=executor.pool(number))
        self.server = RealtimeServer(number, self.instance, executor, pair.clock, self, lambda: None)
        self.finished: list[Request] = []
        self.joined: list[int] = []
        self.ended: list[tuple[int, int, bool, str]] = []

        def send(to: int, message: Any) -> None:
            pair.clock.at(pair.clock.now_s + pair.delay_s, pair.deliver, (to, number, message))

        self.departures = Departures(
            self.server, self.engine, pair.clock, rules, 1, send, lambda *end: self.ended.append(end)
        )
        self.arrivals = Arrivals(self.server, self.engine, pair.clock, rules, send, self.joined.append)

    def on_outcome(self, server, outcome):
        for request in outcome.finished:
            self.departures.on_ended(request.index)
            self.finished.append(request)
            self.pair.left -= 1
        for request in outcome.crossed:
            self.departures.ask(Migrate(request.index, 1 - self.server.number, "handover"))

    def on_departed(self, server, requests):
        for request in requests:
            self.departures.on_departed(request)

    def on_preempted(self, server, requests):
        for request in requests:
            self.departures.on_preempted(request.index)


class Pair:
    """Instance 0, whose requests migrate to instance 1 at a boundary, and instance 1."""

    def __init__(
        self, *, boundary: int | None, rules: MigrationRules | None = None, delay_s: float = 0.0, **config: Any
    ) -> None:
        """``delay_s``: how long every message takes; an iteration takes about ten ticks."""
        self.delay_s = delay_s
        ticks = itertools.count()
        self.clock = WallClock(0.0, lambda: next(ticks) * TICK_S)
        self.left = 0
        self.sides = [Side(number, self, engine_config(**config), rules or MigrationRules()) for number in range(2)]
        self.sides[0].instance.decoding.watch(boundary)

    def submit(self, side: int, index: int, prompt_tokens: int, output_tokens: int) -> None:
        self.left += 1
        request = Request(index, 0.0, prompt_tokens, output_tokens)
        request.first_instance = request.last_instance = side
        self.sides[side].server.submit(request)

    def run(self) -> None:
        """Serve until all requests have ended and every message has been answered."""
        self.clock.at(0.0, self._check)
        self.clock.serve(SimpleQueue(), lambda message: None)

    def deliver(self, moment: Any) -> None:
        to, source, message = moment.value
        side = self.sides[to]
        assert side.departures.handle(message) or side.arrivals.handle(source, message)

    def _check(self, moment: Any) -> None:
        if not self.left and all(side.departures.idle for side in self.sides):
            self.clock.stop()
        else:
            self.clock.at(self.clock.now_s + 10 * TICK_S, self._check)

    @property
    def sampled(self) -> dict[int, list[int]]:
        """The answers, wherever they were completed."""
        return {
            request.index: side.engine.sequences.sampled[request.index].tolist()
            for side in self.sides
            for request in side.finished
        }

    @property
    def migrations(self) -> list[dict[str, Any]]:
        rows = [
            list(side.departures.rows[at : at + 14])
            for side in self.sides
            for at in range(0, len(side.departures.rows), 14)
        ]
        return [
            {
                "request": int(row[0]),
                "kind": KINDS[int(row[1])],
                "way": (int(row[2]), int(row[3])),
                "pause_s": row[8],
                "copied_tokens": int(row[10]),
                "stages": int(row[11]),
                "status": STATUSES[int(row[12])],
                "reason": REASONS[int(row[13])],
            }
            for row in rows
        ]

    def assert_nothing_is_left(self) -> None:
        for side in self.sides:
            assert side.engine.pools[0].pages_held == 0
            assert side.engine.pools[0].free == side.engine.pools[0].total
            assert side.server.transfers == 0
            assert side.instance.running == 0
