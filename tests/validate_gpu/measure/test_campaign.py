"""Measuring until the time is up: what is kept, skipped and given up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from l4sim.calibration.measured.folder import Measured
from l4sim.cost.profile import Provenance
from l4sim.errors import InputError
from l4sim.specs.gpu import GPUS
from validate_gpu.measure.bench import DeviceLostError, NotRunError
from validate_gpu.measure.campaign import Outcome, measure_points
from validate_gpu.measure.points import ElementwisePoint, Point, ProductPoint, Sample
from validate_gpu.measure.store import Store
from validate_gpu.measure.work import CheckFailedError

PROVENANCE = Provenance(None, "a test", "Apache-2.0", None, None, None, None, None)
POINTS = [ProductPoint(m, 64, 64) for m in range(1, 11)]
OTHERS = [ElementwisePoint("silu", tokens, 64, 1024) for tokens in (1, 2)]


class Bench:
    """Takes ``real_s`` of its own clock per point."""

    def __init__(self, real_s: float = 1.0, fails: Callable[[Point], Exception | None] = lambda point: None) -> None:
        self.clock_s = 0.0
        self.asked: list[Point] = []
        self._real_s = real_s
        self._fails = fails

    def measure(self, point: Point) -> Sample:
        self.asked.append(point)
        self.clock_s += self._real_s
        error = self._fails(point)
        if error is not None:
            raise error
        return Sample(1e-5, 0.0, 7, "host", 0.0)


def run(bench: Bench, folder: Path, points: list[Point], budget_s: float = 1e9) -> Outcome:
    return measure_points(
        points,
        bench,
        Store(folder, Measured("folder", GPUS["h200-sxm"], PROVENANCE, "flashinfer-tensor")),
        estimate_s=lambda point: 1.0,
        budget_s=budget_s,
        now=lambda: bench.clock_s,
        clock_mhz=lambda: 0.0,
        progress=lambda point, measured, left_s: None,
    )


def test_points_are_measured_in_order_while_they_fit(tmp_path: Path) -> None:
    bench = Bench()
    outcome = run(bench, tmp_path, [*POINTS], budget_s=4.0)
    assert bench.asked == POINTS[:4]
    assert (outcome.measured, outcome.not_reached) == (4, 6)


def test_a_second_run_goes_on_where_the_first_one_stopped(tmp_path: Path) -> None:
    run(Bench(), tmp_path, [*POINTS], budget_s=4.0)
    second = Bench()
    outcome = run(second, tmp_path, [*POINTS])
    assert second.asked == POINTS[4:]
    assert (outcome.measured, outcome.there_before) == (6, 4)


def test_estimates_follow_what_points_really_take(tmp_path: Path) -> None:
    slow = Bench(real_s=3.0)
    run(slow, tmp_path, [ProductPoint(m, 64, 64) for m in range(1, 200)], budget_s=100.0)
    # Every started point is meant to end within the budget: 33 of 3 s do.
    assert 32 <= len(slow.asked) <= 33
    assert slow.clock_s <= 100.0


def test_an_interruption_keeps_what_is_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Bench(fails=lambda point: KeyboardInterrupt() if point == POINTS[3] else None), tmp_path, [*POINTS])  # type: ignore[arg-type, return-value]
    second = Bench()
    run(second, tmp_path, [*POINTS])
    assert second.asked == POINTS[3:]


def test_an_operator_with_a_wrong_result_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    bench = Bench(fails=lambda point: CheckFailedError("off by 1") if point == POINTS[1] else None)
    outcome = run(bench, tmp_path, [*POINTS, *OTHERS])
    assert bench.asked == [*POINTS[:2], *OTHERS]
    assert [(failure.point, failure.reason) for failure in outcome.failures] == [(POINTS[1], "off by 1")]
    assert outcome.measured == 3


def test_a_point_out_of_memory_costs_itself_alone(tmp_path: Path) -> None:
    bench = Bench(fails=lambda point: NotRunError("OutOfMemoryError:\nfull") if point == POINTS[1] else None)
    outcome = run(bench, tmp_path, [*POINTS])
    assert bench.asked == POINTS
    assert [failure.reason for failure in outcome.failures] == ["OutOfMemoryError: full"]
    assert not run(Bench(), tmp_path, [*POINTS]).measured


def test_an_operator_that_never_runs_is_given_up_after_three_times(tmp_path: Path) -> None:
    bench = Bench(fails=lambda point: NotRunError("no kernel") if point.table == "linear" else None)
    run(bench, tmp_path, [*POINTS, *OTHERS])
    assert bench.asked == [*POINTS[:3], *OTHERS]


def test_a_point_that_comes_twice_is_measured_twice_however_often_it_is_interrupted(tmp_path: Path) -> None:
    twice = [POINTS[0], *OTHERS, POINTS[0]]
    run(Bench(), tmp_path, twice, budget_s=3.0)
    second, third = Bench(), Bench()
    assert run(second, tmp_path, twice).there_before == 3
    assert second.asked == [POINTS[0]]
    assert run(third, tmp_path, twice).there_before == 4
    assert not third.asked


def test_a_point_that_failed_is_not_tried_for_its_second_time(tmp_path: Path) -> None:
    bench = Bench(fails=lambda point: NotRunError("full") if point == POINTS[0] else None)
    run(bench, tmp_path, [POINTS[0], *OTHERS, POINTS[0]])
    assert bench.asked == [POINTS[0], *OTHERS]


def test_a_lost_device_ends_the_campaign_in_one_line_and_its_point_is_skipped(tmp_path: Path) -> None:
    lost = Bench(fails=lambda point: DeviceLostError("illegal access") if point == POINTS[2] else None)
    with pytest.raises(InputError, match=r"failed at linear: m=3, n=64, k=64 \(illegal access\): 2 points are kept"):
        run(lost, tmp_path, [*POINTS])
    second = Bench()
    run(second, tmp_path, [*POINTS])
    assert second.asked == POINTS[3:]
