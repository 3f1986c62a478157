"""Means over seeds."""

from __future__ import annotations

import pandas as pd
import pytest

from l4sim.sweeps.seeds import over_seeds


def points(values, **columns):
    rows = {"policy": "l4", "seed": range(len(values)), "status": "done", "error": "", "ttft_mean_s": values}
    return pd.DataFrame(rows | columns)


def test_the_mean_and_students_interval():
    [row] = over_seeds(points([1.0, 2.0, 3.0])).to_dict("records")
    # Standard deviation 1, two degrees of freedom: t is 4.3027 at 97.5 %.
    assert row == {
        "policy": "l4",
        "seeds": 3,
        "ttft_mean_s": 2.0,
        "ttft_mean_s_ci95": pytest.approx(4.3027 / 3**0.5, rel=1e-4),
    }


def test_a_single_seed_has_no_interval():
    [row] = over_seeds(points([1.5])).to_dict("records")
    assert row["ttft_mean_s"] == 1.5
    assert pd.isna(row["ttft_mean_s_ci95"])


def test_settings_but_the_seed_make_rows_in_their_order():
    table = over_seeds(points([1.0, 3.0, 5.0, 7.0], rate_per_s=[9.0, 9.0, 2.0, 2.0], kernel=[None] * 4))
    assert table["rate_per_s"].tolist() == [9.0, 2.0]
    assert table["ttft_mean_s"].tolist() == [2.0, 6.0]


def test_failed_points_are_left_out():
    table = over_seeds(points([1.0, None, 3.0], status=["done", "failed", "done"]))
    assert table["seeds"].tolist() == [2]
    assert table["ttft_mean_s"].tolist() == [2.0]


def test_a_sweep_that_failed_throughout_has_no_means():
    assert len(over_seeds(points([None, None], status="failed"))) == 0
