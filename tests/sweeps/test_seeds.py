"""Means over seeds, and changes paired by seed."""

from __future__ import annotations

import pandas as pd
import pytest

from l4sim.sweeps.seeds import changes_by_seed, over_seeds


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


def test_policies_are_held_against_the_first_one_seed_by_seed():
    # Seeds differ by far more than the policies do, and the second seed of l4 has failed.
    first = points([1.0, 10.0, 100.0, 1000.0], policy="llumnix", rate_per_s=5.0)
    own = points([0.8, None, 80.0, 800.0], rate_per_s=5.0, status=["done", "failed", "done", "done"])
    [row] = changes_by_seed(pd.concat([first, own], ignore_index=True)).to_dict("records")
    assert (row["policy"], row["against"], row["figure"], row["rate_per_s"]) == ("l4", "llumnix", "ttft_mean_s", 5.0)
    assert row["seeds"] == 3
    assert row["change"] == pytest.approx(-0.2)
    assert row["verdict"] == "better"


def test_each_rate_has_changes_of_its_own():
    first = points([1.0, 2.0, 1.0, 2.0], policy="llumnix", rate_per_s=[1.0, 1.0, 2.0, 2.0], seed=[0, 1, 0, 1])
    own = points([2.0, 4.0, 1.0, 2.0], rate_per_s=[1.0, 1.0, 2.0, 2.0], seed=[0, 1, 0, 1])
    changes = changes_by_seed(pd.concat([first, own], ignore_index=True))
    assert changes["change"].tolist() == pytest.approx([1.0, 0.0])
    assert changes["verdict"].tolist() == ["worse", "cannot tell"]


def test_one_policy_has_no_changes():
    assert changes_by_seed(points([1.0, 2.0])).empty


def test_without_seeds_there_is_nothing_to_pair_by():
    both = pd.concat([points([1.0], policy="llumnix"), points([2.0])], ignore_index=True)
    assert changes_by_seed(both.drop(columns="seed")).empty
