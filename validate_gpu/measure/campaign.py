"""Measuring point after point until the time is up; every finished point is on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from l4sim.errors import InputError
from validate_gpu.measure.bench import Bench, DeviceLostError, NotRunError
from validate_gpu.measure.points import Point, describe
from validate_gpu.measure.store import Store
from validate_gpu.measure.work import CheckFailedError

# How fast the ratio of real to estimated seconds follows.
_LEARNING = 0.1
_MOST_RATIO = 20.0
# An operator that cannot be run so often is not tried again: a missing kernel may take long to fail.
_MOST_REFUSALS = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """A point that could not be measured."""

    point: Point
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a campaign has measured, skipped and failed at."""

    measured: int
    there_before: int
    failures: tuple[Failure, ...]
    not_reached: int


class Progress(Protocol):
    """Is called before every point."""

    def __call__(self, point: Point, measured: int, left_s: float) -> None:
        """``measured`` points are done; ``left_s`` seconds of the budget are left."""
        ...


def measure_points(
    points: Sequence[Point],
    bench: Bench,
    store: Store,
    *,
    estimate_s: Callable[[Point], float],
    budget_s: float,
    now: Callable[[], float],
    clock_mhz: Callable[[], float],
    progress: Progress,
) -> Outcome:
    """Measure points in order, those that are there already skipped, while the next one fits the budget.

    A point that comes several times is measured as often, at different moments.

    Estimates are scaled by what the points so far took. A point that fails is kept as failed, with the reason; an
    operator whose result is wrong, or that could not be run three times, is measured no further.

    Raises:
        InputError: the device failed as a whole; what is finished is kept, and the failing point will be skipped.
    """
    deadline_s = now() + budget_s
    ratio = 1.0
    measured = there_before = not_reached = 0
    failures: list[Failure] = []
    given_up: set[str] = set()
    refused: Counter[str] = Counter()
    wanted: Counter[Point] = Counter()
    for point in points:
        wanted[point] += 1
        if store.has(point, wanted[point]):
            there_before += 1
            continue
        estimated_s, start_s = estimate_s(point), now()
        if point.operator in given_up or start_s + ratio * estimated_s > deadline_s:
            not_reached += 1
            continue
        progress(point, measured, deadline_s - start_s)
        try:
            sample = bench.measure(point)
        except CheckFailedError as error:
            given_up.add(point.operator)
            failures.append(_fail(store, point, str(error)))
        except NotRunError as error:
            failures.append(_fail(store, point, str(error)))
            refused[point.operator] += 1
            if refused[point.operator] == _MOST_REFUSALS:
                given_up.add(point.operator)
        except DeviceLostError as error:
            _fail(store, point, str(error))
            raise InputError(
                f"the device failed at {describe(point)} ({error}): {measured} points are kept, run the same command "
                "again to go on behind it"
            ) from error
        else:
            store.add(point, sample, clock_mhz())
            measured += 1
        taken_ratio = (now() - start_s) / estimated_s
        ratio += _LEARNING * (min(taken_ratio, _MOST_RATIO) - ratio)
    return Outcome(measured, there_before, tuple(failures), not_reached)


def _fail(store: Store, point: Point, reason: str) -> Failure:
    line = " ".join(reason.split())
    store.fail(point, line)
    return Failure(point, line)
