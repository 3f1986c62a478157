"""Running points: once each, whatever fails, wherever they run."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from l4sim.sweeps import runner
from l4sim.sweeps.points import Point, evaluate
from l4sim.sweeps.processes import Processes
from l4sim.sweeps.runner import Progress, run_points
from l4sim.sweeps.store import Store

SEEDS = [0, 1, 2, 3]


class Deadly(Point):
    """A point whose process dies."""

    __slots__ = ()

    def trace(self):
        os._exit(3)


class Slow(Point):
    """A point that takes a while, so that others are under way when a process dies."""

    __slots__ = ()

    def trace(self):
        time.sleep(0.5)
        return super().trace()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def evaluated(monkeypatch):
    """The seeds that were simulated, in order."""
    seeds = []

    def noted(point):
        seeds.append(point.settings["seed"])
        return evaluate(point)

    monkeypatch.setattr(runner, "evaluate", noted)
    return seeds


@pytest.mark.slow
def test_rows_come_in_the_points_order_with_their_settings(store, make_points):
    rows = run_points(make_points(seed=SEEDS), store)
    assert [row["seed"] for row in rows] == SEEDS
    assert all(row["status"] == "done" and row["synth.requests"] == 10 for row in rows)


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_where_it_stopped(store, make_points, evaluated):
    def stop(progress):
        if progress.ended == 2:
            raise KeyboardInterrupt

    points = make_points(seed=SEEDS)
    with pytest.raises(KeyboardInterrupt):
        run_points(points, store, report=stop)
    assert evaluated == [0, 1]
    rows = run_points(points, store)
    assert evaluated == SEEDS
    assert [row["seed"] for row in rows] == SEEDS


@pytest.mark.slow
def test_a_larger_grid_runs_only_what_is_new(store, make_points, evaluated):
    run_points(make_points(seed=[0, 1]), store)
    run_points(make_points(seed=[0, 1, 2]), store)
    assert evaluated == [0, 1, 2]


def test_a_stored_row_takes_the_settings_names_of_the_sweep_that_asks(store, make_points):
    run_points(make_points(seed=[0], prefix_caching=True), store)
    [row] = run_points(make_points(seed=[0]), store)
    assert "prefix_caching" not in row


@pytest.mark.slow
def test_one_failed_point_is_recorded_and_the_rest_goes_on(store, make_points, evaluated):
    points = make_points(seed=[0, 1], kernel=["fa9", None])
    assert [row["status"] for row in run_points(points, store)] == ["failed", "done", "failed", "done"]
    run_points(points, store)
    assert len(evaluated) == 4
    run_points(points, store, retry_failed=True)
    assert len(evaluated) == 6


@pytest.mark.slow
def test_a_point_whose_file_is_missing_fails_without_being_kept(store, make_points, tmp_path):
    points = make_points(seed=[0, 1])
    missing = Point({"policy": "l4", "trace": str(tmp_path / "none.csv")})
    rows = run_points([points[0], missing, points[1]], store)
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert "none.csv: cannot be read" in rows[1]["error"]
    assert len(list((tmp_path / "points").iterdir())) == 2


@pytest.mark.slow
def test_progress_counts_what_ended_what_was_there_and_what_failed(store, make_points):
    run_points(make_points(seed=[0]), store)
    seen = []
    run_points(make_points(seed=[0, 1], kernel=[None, "fa9"]), store, report=seen.append)
    assert seen[0] == Progress(points=4, stored=1, ended=0, failures=0)
    assert seen[-1] == Progress(points=4, stored=1, ended=3, failures=2)


@pytest.mark.slow
def test_any_executor_gives_the_same_rows(store, make_points, tmp_path):
    points = make_points(seed=SEEDS)
    with ThreadPoolExecutor(3) as executor:
        assert run_points(points, store, workers=executor) == run_points(points, Store(tmp_path / "other"))


@pytest.mark.slow
def test_trouble_of_an_executor_with_one_point_is_that_points_failure(store, make_points):
    class Lossy(ThreadPoolExecutor):
        def submit(self, fn, /, point):
            return super().submit(fn, None if point.settings["seed"] == 1 else point)

    with Lossy(1) as executor:
        rows = run_points(make_points(seed=[0, 1, 2]), store, workers=executor)
    assert [row["status"] for row in rows] == ["done", "failed", "done"]


@pytest.mark.slow
def test_processes_give_the_same_rows(store, make_points, tmp_path):
    points = make_points(seed=SEEDS)
    with Processes(2) as processes:
        assert run_points(points, store, workers=processes) == run_points(points, Store(tmp_path / "other"))


@pytest.mark.slow
def test_a_process_that_dies_costs_only_its_own_point(store, make_points):
    slow, *rest = make_points(seed=SEEDS)
    [deadly] = make_points(seed=9)
    with Processes(2) as processes:
        rows = run_points([Slow(slow.settings), Deadly(deadly.settings), *rest], store, workers=processes)
    assert [row["status"] for row in rows] == ["done", "failed", "done", "done", "done"]
    assert "the process died" in rows[1]["error"]
