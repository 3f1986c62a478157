"""Points to rows: what is stored is not run again, what fails is recorded, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass

from l4sim.errors import InputError
from l4sim.sweeps.points import Point, Row, evaluate, failed, is_setting
from l4sim.sweeps.processes import Processes
from l4sim.sweeps.store import Store


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep is."""

    points: int
    stored: int
    """Taken from an earlier call."""
    ended: int
    """Of this call, failures included."""
    failures: int
    """Of all."""

    def __add__(self, other: Progress) -> Progress:
        return Progress(
            self.points + other.points,
            self.stored + other.stored,
            self.ended + other.ended,
            self.failures + other.failures,
        )


Report = Callable[[Progress], None]


def run_points(
    points: Sequence[Point],
    store: Store,
    *,
    workers: Processes | Executor | None = None,
    retry_failed: bool = False,
    report: Report | None = None,
) -> list[Row]:
    """The points' rows with their settings, in the points' order; each is stored as it finishes.

    ``workers`` are processes on this machine, or any executor, whose workers must find the files that the points name
    under the same paths; None is this process. A point whose row is in the store is not run again, unless it failed and
    ``retry_failed``. A process that dies (out of memory, say) costs its points a second attempt, alone.

    Raises:
        InputError: a broken executor, or a store that cannot be written.
    """
    run = _Sweep(points, store, retry_failed, report)
    if workers is None:
        run.here()
    elif isinstance(workers, Processes):
        run.in_processes(workers)
    elif run.on(workers, at_once=max(len(points), 1)):
        raise InputError("the executor broke down; run the sweep again, and it goes on where it stopped")
    return [run.rows[key] for key in run.keys]


class _Sweep:
    def __init__(self, points: Sequence[Point], store: Store, retry_failed: bool, report: Report | None) -> None:
        self._store, self._report = store, report
        self.keys: list[str] = []
        self.rows: dict[str, Row] = {}
        self._waiting: dict[str, Point] = {}
        for number, point in enumerate(points):
            # A point that has no key (a file is missing, say) has a row of its own for this call, and is not stored.
            try:
                key = point.key
            except InputError as error:
                key = f"no key {number}"
                self.rows[key] = _with_settings(point, failed(str(error)))
            self.keys.append(key)
            if key in self.rows:
                continue
            row = store.read(key)
            if row is None or (retry_failed and row["status"] == "failed"):
                self._waiting[key] = point
            else:
                self.rows[key] = _with_settings(point, row)
        self._stored, self._ended = len(self.rows), 0
        self._tell()

    def here(self) -> None:
        """Run one after the other in this process."""
        for key in list(self._waiting):
            self._end(key, evaluate(self._waiting[key]))

    def in_processes(self, processes: Processes) -> None:
        """Run in processes; where one dies, each point that was under way runs again, alone."""
        # One more than can run, so that no process waits for this one to write what another has found.
        while suspects := self.on(processes.pool, at_once=processes.jobs + 1):
            processes.replace()
            for key in suspects:
                with Processes(1) as alone:
                    if self.on(alone.pool, at_once=1, only=key):
                        self._end(key, failed("the process died, twice: out of memory?"))

    def on(self, executor: Executor, at_once: int, only: str | None = None) -> list[str]:
        """Run on an executor; the keys that were under way when it broke, none if it did not."""
        queue = [only] if only is not None else list(self._waiting)
        queue.reverse()
        running: dict[Future[Row], str] = {}
        while queue or running:
            try:
                while queue and len(running) < at_once:
                    key = queue[-1]
                    running[executor.submit(evaluate, self._waiting[key])] = key
                    queue.pop()
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    self._end(running[future], _row(future))
                    del running[future]
            except BrokenExecutor:
                return [key for key in running.values() if key in self._waiting] or queue[-1:]
        return []

    def _end(self, key: str, row: Row) -> None:
        point = self._waiting.pop(key)
        self.rows[key] = _with_settings(point, row)
        self._store.write(key, self.rows[key])
        self._ended += 1
        self._tell()

    def _tell(self) -> None:
        if self._report is not None:
            failures = sum(row["status"] == "failed" for row in self.rows.values())
            self._report(Progress(len(self.keys), self._stored, self._ended, failures))


def _row(future: Future[Row]) -> Row:
    """The future's row; an executor's own trouble with one point (a lost worker, say) is that point's failure."""
    try:
        return future.result()
    except BrokenExecutor:
        raise
    except Exception as error:
        return failed(f"{type(error).__name__}: {error}")


def _with_settings(point: Point, row: Row) -> Row:
    """The row after the settings of this sweep's point: a stored one may come from a sweep that named others."""
    return {**point.settings, **{name: value for name, value in row.items() if not is_setting(name)}}
