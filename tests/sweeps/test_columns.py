"""Figures and settings of a sweep as text."""

from __future__ import annotations

import pytest

from l4sim.sweeps.columns import COLUMNS, figure_text, setting_text

TTFT, TPOT, *_ = COLUMNS


@pytest.mark.parametrize(
    ("figures", "column", "text"),
    [
        ({"ttft_p99_s": 1.2345}, TTFT, ("1.23", "")),
        ({"ttft_p99_s": 1.2345, "ttft_p99_s_ci95": 0.5}, TTFT, ("1.23", "±0.50")),
        ({"tpot_p99_s": 0.0456, "tpot_p99_s_ci95": 0.1}, TPOT, ("45.6", "±100.0")),
        ({"ttft_p99_s": float("nan")}, TTFT, ("–", "")),
    ],
)
def test_a_figure_and_its_interval_have_the_same_decimals(figures, column, text):
    assert figure_text(figures, column) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("nan"), "–"), (3.18628, "3.186"), (8, "8"), ("fa3", "fa3"), (False, "False")],
)
def test_a_setting_that_is_open_is_a_dash(value, text):
    assert setting_text(value) == text
