"""Live instances behind the simulator's seam: steps are run and measured, KV is copied."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from l4sim.batch import Batch, same_batch
from l4sim.engine.blocks import BlockPool
from l4sim.engine.protocol import Step
from l4sim.engine.request import Request
from l4sim.runtime.executor import ExecutionError
from validate_gpu.live.device import failures_of
from validate_gpu.live.engine import DeviceEngine
from validate_gpu.live.kv import copy_kv, equal_kv
from validate_gpu.live.pages import PagedPool
from validate_gpu.live_run import Copy, Iteration


class LiveExecutor:
    """Instances spread over engines in turn; each step runs alone, and its measured seconds are its time."""

    measured = True

    def __init__(
        self,
        engines: Sequence[DeviceEngine],
        *,
        first: int = 0,
        clock_mhz: Callable[[], float] = lambda: 0.0,
        slowness: Callable[[float], float] | None = None,
    ) -> None:
        """``engines`` are reset: they serve one run at a time. ``first``: the number of the first instance on them.

        ``slowness``: how many times a reference's seconds the device took while it worked for so many more. Steps take
        their measured seconds divided by it.
        """
        self._engines = engines
        self._first = first
        self._clock_mhz = clock_mhz
        self._slowness = slowness
        for engine in engines:
            engine.reset()
        self.iterations: list[Iteration] = []
        self.copies: list[Copy] = []

    def _place(self, instance: int) -> tuple[DeviceEngine, int]:
        """An instance's engine, and its number there."""
        number, engine = divmod(instance - self._first, len(self._engines))
        return self._engines[engine], number

    def pool(self, instance: int) -> PagedPool:
        """The pages of an instance."""
        engine, number = self._place(instance)
        return engine.pools[number]

    def execute(self, instance: int, step: Step, decoding: Sequence[Request]) -> tuple[float, float]:
        """Run a step of one iteration.

        Raises:
            ExecutionError: the device ran out of memory, or failed otherwise.
        """
        engine, number = self._place(instance)
        with failures_of(f"instance {instance} with {len(decoding)} decoding and {len(step.chunks)} prompts"):
            measured_s = engine.step(number, step, decoding)
        slowness = 1.0 if self._slowness is None else self._slowness(measured_s)
        seconds = measured_s / slowness
        contexts = step.batch.decode_context_tokens.copy()
        batch = Batch(contexts, step.batch.decode_context_sum, step.batch.prefills)
        self.iterations.append(Iteration(instance, batch, seconds, self._clock_mhz(), slowness))
        return seconds, seconds

    def copy(self, request: Request, source: int, destination: int, start_tokens: int, end_tokens: int) -> None:
        """Copy KV on the device, or from one GPU to its peer.

        Raises:
            ExecutionError: the device ran out of memory, or failed otherwise.
        """
        from_engine, _ = self._place(source)
        to_engine, _ = self._place(destination)
        from_pages = self.pool(source).pages(request.index)
        to_pages = self.pool(destination).grow(request.index, end_tokens)
        with failures_of(f"KV from instance {source} to {destination}"):
            moved = (from_engine.kv, from_pages, to_engine.kv, to_pages, start_tokens, end_tokens)
            start_s = time.perf_counter()
            copy_kv(*moved)
            to_engine.synchronize()
            seconds = time.perf_counter() - start_s
            equal = equal_kv(*moved)
        tokens = end_tokens - start_tokens
        size_bytes = tokens * from_engine.kv.token_bytes
        self.copies.append(Copy(request.index, source, destination, tokens, size_bytes, seconds, equal))

    def discard(self, request: int, destination: int) -> None:
        """Free the pages that copied KV was put in."""
        self.pool(destination).discard(request)


class RecordedExecutor:
    """A live run's times once more: nothing is run, every iteration takes the seconds that it took then."""

    measured = True

    def __init__(self, iterations: Iterable[Iteration]) -> None:
        """``iterations``: each instance's in order."""
        own: defaultdict[int, list[Iteration]] = defaultdict(list)
        for iteration in iterations:
            own[iteration.instance].append(iteration)
        self._left: dict[int, Iterator[Iteration]] = {instance: iter(ran) for instance, ran in own.items()}

    def pool(self, instance: int) -> BlockPool | None:
        """None: blocks are counts."""
        return None

    def execute(self, instance: int, step: Step, decoding: Sequence[Request]) -> tuple[float, float]:
        """The next recorded time of the instance.

        Raises:
            ExecutionError: the instance runs other iterations than were recorded, or more: the schedules differ.
        """
        recorded = next(self._left.get(instance, iter(())), None)
        if recorded is None:
            raise ExecutionError(f"instance {instance} runs more iterations than were recorded")
        if not same_batch(recorded.batch, step.batch):
            raise ExecutionError(f"instance {instance} runs another batch than was recorded")
        return recorded.seconds, recorded.seconds

    def copy(self, request: Request, source: int, destination: int, start_tokens: int, end_tokens: int) -> None:
        """Nothing to copy."""

    def discard(self, request: int, destination: int) -> None:
        """Nothing to forget."""
