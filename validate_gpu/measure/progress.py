"""A bar of the budget that is spent, with the time left, on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from validate_gpu.measure.points import Point


class _Bar:
    def __init__(self, shown: Progress, budget_s: float) -> None:
        self._shown = shown
        self._budget_s = budget_s
        self._task = shown.add_task("measuring", total=budget_s, left="", point="")

    def __call__(self, point: Point, measured: int, left_s: float) -> None:
        """Show how far a campaign is."""
        minutes, seconds = divmod(round(left_s), 60)
        self._shown.update(
            self._task,
            completed=self._budget_s - left_s,
            left=f"{minutes}:{seconds:02} left",
            point=f"{measured} points, now {point.operator}",
        )


@contextmanager
def progress_bar(budget_s: float) -> Iterator[_Bar]:
    """A progress bar that a campaign calls."""
    columns = (BarColumn(), TextColumn("{task.fields[left]}"), TextColumn("{task.fields[point]}"))
    with Progress(*columns, console=Console(stderr=True)) as shown:
        yield _Bar(shown, budget_s)
