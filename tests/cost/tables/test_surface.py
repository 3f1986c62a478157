"""Seconds over requests and lengths: as measured, between, where something is missing, and beyond."""

import numpy as np
import pytest

from l4sim.cost.tables.surface import Surface, surface_of
from l4sim.cost.tables.table import OperatorTable


def table(*rows: list[list[float]]) -> OperatorTable:
    axes = {"batch": np.array([1, 2, 4]), "length": np.array([10, 20, 40])}
    return OperatorTable("op", {}, {}, axes, np.array(rows, dtype=float))


MEASURED = [[1.0, 2.0, 4.0], [2.0, 4.0, 8.0], [4.0, 8.0, np.nan]]
"""A second for ten tokens; the largest batch did not fit."""


@pytest.fixture
def surface() -> Surface:
    return surface_of(table(MEASURED), [0])


def test_what_was_measured_is_told(surface: Surface) -> None:
    assert [surface.at(2, length) for length in (10, 20, 40)] == [2.0, 4.0, 8.0]


def test_between_it_is_linear_in_both(surface: Surface) -> None:
    assert surface.at(3, 15) == pytest.approx(4.5)


def test_what_is_missing_goes_on_along_the_lengths(surface: Surface) -> None:
    assert surface.at(4, 40) == pytest.approx(16.0)


def test_beyond_the_grid_it_grows_on_and_below_it_is_the_least(surface: Surface) -> None:
    assert surface.at(8, 80) == pytest.approx(64.0)
    assert surface.at(1, 2) == 1.0


def test_requests_without_any_length_are_told_by_the_others() -> None:
    missing = [[1.0, 2.0, 4.0], [np.nan] * 3, [4.0, 8.0, 16.0]]
    assert surface_of(table(missing), [0]).at(2, 20) == pytest.approx(2 + 6 / 3)


def test_several_kernels_run_one_after_the_other() -> None:
    assert surface_of(table(MEASURED, MEASURED), [0, 1]).at(1, 20) == 4.0
