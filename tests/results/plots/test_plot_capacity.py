"""The picture of capacities."""

from __future__ import annotations

import pandas as pd
import pytest

from l4sim.results.plots.capacity import capacity_by_policy
from l4sim.results.plots.style import KNOWN
from l4sim.results.slo import parse_slo

SLO = parse_slo("ttft=3s,tpot=50ms")
SETTINGS = ("policy", "rate_per_s", "instances", "kernel")


def found(rows, **more):
    return pd.DataFrame([{"policy": policy, "rate_per_s": rate, "error": "", **more} for policy, rate in rows])


def draw(table, searched="rate_per_s"):
    return capacity_by_policy(table, SETTINGS, searched, SLO)


def test_a_bar_per_policy_with_its_rate_under_the_slo():
    [ax] = draw(found([("vllm", 4.0), ("l4", 5.25)])).axes
    assert [bar.get_width() for bar in ax.patches] == [4.0, 5.25]
    assert [text.get_text() for text in ax.texts] == ["4.00", "5.25"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["vllm", "l4"]
    assert ax.get_xlabel() == "highest arrival rate (requests/s) with TTFT ≤ 3 s and TPOT ≤ 50 ms for 90 % of requests"


def test_a_price_is_told_behind_the_rate():
    [ax] = draw(found([("l4", 5.0)], usd_per_million_output_tokens=1.876)).axes
    assert ax.texts[0].get_text() == "5.00 (1.88 USD/10⁶ tokens)"


def test_a_policy_without_a_capacity_says_why_instead_of_having_a_bar():
    table = found([("vllm", None), ("l4", 5.0), ("two-pools", 2.0**20)])
    table["error"] = ["the SLO is not met anywhere", "", "the SLO is met at any rate"]
    [ax] = draw(table).axes
    assert [bar.get_width() for bar in ax.patches] == [0, 5, 0]
    assert [text.get_text() for text in ax.texts] == [
        "the SLO is not met anywhere",
        "5.00",
        "the SLO is met at any rate",
    ]


def test_where_no_policy_has_one_there_is_no_picture():
    assert draw(found([("l4", None)], error="the SLO is not met anywhere")) is None


def test_what_else_was_varied_has_panels_of_its_own():
    tables = [found([("vllm", 4.0), ("l4", 5.0)], kernel=kernel) for kernel in ("fa3", "fa2")]
    assert [ax.get_title() for ax in draw(pd.concat(tables)).axes] == ["kernel fa3", "kernel fa2"]


@pytest.mark.parametrize(
    ("searched", "x", "label"),
    [
        ("rate_per_s", "instances", "highest arrival rate\n(requests/s)"),
        ("instances", "rate_per_s", "fewest instances"),
    ],
)
def test_lines_against_a_number_that_was_varied(searched, x, label):
    rows = [
        {"policy": policy, x: value, searched: factor * value, "error": ""}
        for policy, factor in (("vllm", 1), ("l4", 2))
        for value in (2, 4, 8)
    ]
    [ax] = draw(pd.DataFrame(rows), searched).axes
    line = next(line for line in ax.lines if line.get_color() == KNOWN["l4"])
    assert line.get_xydata().tolist() == [[2, 4], [4, 8], [8, 16]]
    assert ax.get_ylabel() == label
    assert ax.get_title() == "with TTFT ≤ 3 s and TPOT ≤ 50 ms for 90 % of requests"
