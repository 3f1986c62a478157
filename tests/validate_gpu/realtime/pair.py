"""Two realtime instances in one process, on a clock that ticks when it is read, with messages that take their time."""

from __future__ import annotations

import itertools
from queue import SimpleQueue
from typing import Any

from l4sim.engine.request import Request
from l4sim.engine.vllm.engine import VLLMEngine
from l4sim.policies.agent import Crossed, Joined, Migrate, MigrationEnded, Started, Watch
from l4sim.records import MigrationRow, migration_table
from l4sim.runtime.instance_host import InstanceHost
from l4sim.runtime.migration.methods import MigrationRules
from tests.validate_gpu.live.small import MODEL, engine_config, transformer
from validate_gpu.live.engine import DeviceEngine, torch_kernels
from validate_gpu.live.executor import LiveExecutor
from validate_gpu.live.sequences import Sequences
from validate_gpu.realtime.clock import WallClock
from validate_gpu.realtime.server import RealtimeServer
from validate_gpu.realtime.transport import SocketTransport
from validate_gpu.realtime.worker import deliver_migration

TICK_S = 1e-4


class Mover:
    """Moves every request that crosses the boundary to the other instance."""

    def __init__(self, number: int, boundary: int | None) -> None:
        self.peer, self.boundary = 1 - number, boundary
        self.joined: list[int] = []
        self.ended: list[MigrationEnded] = []

    def handle(self, stimulus, own, now_s):
        match stimulus:
            case Started():
                return (Watch(self.boundary),)
            case Crossed(request):
                return (Migrate(request.request, self.peer, "handover"),)
            case Joined(request):
                self.joined.append(request)
            case MigrationEnded():
                self.ended.append(stimulus)
        return ()


class Wire:
    """A connection to the other instance, whose messages take their time."""

    def __init__(self, pair: Pair, sender: int, to: int) -> None:
        self.pair, self.sender, self.to = pair, sender, to

    def send(self, message: Any) -> None:
        self.pair.clock.at(
            self.pair.clock.now_s + self.pair.delay_s, self.pair.deliver, (self.to, self.sender, message)
        )


class Side:
    """One instance, and what happened on it."""

    def __init__(self, number: int, pair: Pair, boundary: int | None, config: Any, rules: MigrationRules) -> None:
        self.engine = DeviceEngine(transformer(), config, 1, torch_kernels(), Sequences(MODEL.vocab, 0))
        executor = LiveExecutor([self.engine], first=number)
        pool = executor.pool(number)
        self.instance = VLLMEngine(config, max_iterations=1, pool=pool)
        self.server = RealtimeServer(number, self.instance, executor, pair.clock, lambda: None, validate=True)
        self.agent = Mover(number, boundary)
        self.transport = SocketTransport(
            number, self.engine, {1 - number: Wire(pair, number, 1 - number)}, lambda received: None
        )
        self.finished: list[Request] = []
        self.migrations = migration_table()

        def on_finished(request: Request) -> None:
            self.finished.append(request)
            pair.left -= 1

        self.host = InstanceHost(
            self.server,
            self.agent,
            pair.clock,
            self.transport,
            rules,
            self.migrations,
            kv_bytes_per_token=1,
            on_finished=on_finished,
            on_orphan=lambda request: None,
            discard=pool.discard,
        )
        self.host.stimulate(Started())


class Pair:
    """VLLMEngine 0, whose requests migrate to instance 1 at a boundary, and instance 1."""

    def __init__(
        self, *, boundary: int | None, rules: MigrationRules | None = None, delay_s: float = 0.0, **config: Any
    ) -> None:
        """``delay_s``: how long every message takes; an iteration takes about ten ticks."""
        self.delay_s = delay_s
        ticks = itertools.count()
        self.clock = WallClock(0.0, lambda: next(ticks) * TICK_S)
        self.left = 0
        rules = rules or MigrationRules()
        bounds = (boundary, None)
        self.sides = [Side(number, self, bounds[number], engine_config(**config), rules) for number in range(2)]

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
        deliver_migration(side.host, side.transport, source, message)

    def _check(self, moment: Any) -> None:
        if not self.left and all(side.host.departures.idle for side in self.sides):
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
    def migrations(self) -> list[MigrationRow]:
        return [row for side in self.sides for row in side.migrations]

    def assert_nothing_is_left(self) -> None:
        for side in self.sides:
            assert side.engine.pools[0].pages_held == 0
            assert side.engine.pools[0].free == side.engine.pools[0].total
            assert side.server.transfers == 0
            assert side.instance.running == 0
