"""Capacity searches on clusters whose capacity is known."""

from __future__ import annotations

import pytest

from l4sim.errors import InputError
from l4sim.sweeps.capacity import search_capacity
from l4sim.sweeps.grid import grid_axes


def cluster(meets):
    """Rows of points that meet their SLO where ``meets(settings)`` says so; notes what was asked."""

    def evaluate(points):
        evaluate.asked += [dict(point.settings) for point in points]
        return [
            {**point.settings, "status": "done", "error": "", "meets_slo": meets(point.settings), "ttft_p99_s": 1.0}
            for point in points
        ]

    evaluate.asked = []
    return evaluate


def search(evaluate, kind, **grid):
    return search_capacity(grid_axes({"policies": "l4", **grid}), kind, evaluate, slo="ttft_p99=2s")


@pytest.mark.parametrize("capacity", [0.013, 0.99, 1.0, 7.3, 1234.5])
def test_the_highest_rate_to_within_two_percent(capacity):
    evaluate = cluster(lambda settings: settings["rate_per_s"] <= capacity)
    [row] = search(evaluate, "rate").to_dict("records")
    assert capacity / 1.02 <= row["rate_per_s"] <= capacity
    assert row["search_points"] == len(evaluate.asked)
    # One bracket by doubling, then log2(log 2 / log 1.02) = 5.1 halvings of it on the logarithmic scale.
    assert len(evaluate.asked) <= 12 + 6


@pytest.mark.parametrize("fewest", [1, 2, 3, 8, 13, 1000])
def test_the_fewest_instances_exactly(fewest):
    evaluate = cluster(lambda settings: settings["instances"] >= fewest)
    [row] = search(evaluate, "instances", rate=5).to_dict("records")
    assert row["instances"] == fewest
    assert all(type(settings["instances"]) is int for settings in evaluate.asked)


def test_every_combination_has_its_own_capacity_and_all_are_searched_together():
    batches = []

    def evaluate(points):
        batches.append([point.settings["policy"] for point in points])
        return cluster(lambda settings: settings["rate_per_s"] <= {"l4": 8, "least-harm": 3}[settings["policy"]])(
            points
        )

    found = search(evaluate, "rate", policies=["l4", "least-harm"]).set_index("policy")["rate_per_s"]
    assert 8 / 1.02 <= found["l4"] <= 8
    assert 3 / 1.02 <= found["least-harm"] <= 3
    assert batches[0] == ["l4", "least-harm"]


def test_a_rate_must_meet_the_slo_with_every_seed():
    evaluate = cluster(lambda settings: settings["rate_per_s"] <= (8, 5)[settings["seed"]])
    [row] = search(evaluate, "rate", seed=[0, 1]).to_dict("records")
    assert 5 / 1.02 <= row["rate_per_s"] <= 5


def test_the_figures_are_those_at_the_capacity():
    def evaluate(points):
        return [
            {"status": "done", "error": "", "meets_slo": rate <= 4.5, "ttft_p99_s": 10 * rate}
            for rate in (point.settings["rate_per_s"] for point in points)
        ]

    [row] = search(evaluate, "rate").to_dict("records")
    assert row["ttft_p99_s"] == pytest.approx(10 * row["rate_per_s"])


def test_an_slo_below_the_latency_of_one_request_has_no_capacity():
    [row] = search(cluster(lambda _: False), "rate").to_dict("records")
    assert row["rate_per_s"] is None
    assert row["error"] == "the SLO is not met anywhere: is it below the latency of one?"


def test_a_trace_too_short_to_saturate_is_told():
    [row] = search(cluster(lambda _: True), "rate").to_dict("records")
    assert "the trace is too short" in row["error"]


def test_a_failed_point_ends_a_search_for_a_rate_with_its_error():
    def evaluate(points):
        return [{"status": "failed", "error": "no such trace"} for _ in points]

    [row] = search(evaluate, "rate").to_dict("records")
    assert (row["error"], row["search_points"]) == ("no such trace", 1)


def test_a_policy_that_one_instance_is_too_few_for_gets_more():
    def evaluate(points):
        return [
            {"status": "failed", "error": "needs two pools"}
            if point.settings["instances"] < 2
            else {"status": "done", "error": "", "meets_slo": point.settings["instances"] >= 3}
            for point in points
        ]

    [row] = search(evaluate, "instances").to_dict("records")
    assert row["instances"] == 3


@pytest.mark.parametrize(
    ("kind", "grid", "complaint"),
    [
        ("speed", {}, "no search 'speed': accepted are rate, instances"),
        ("rate", {"rate": 3}, "a search for rate chooses rate_per_s: leave rate_per_s out of the grid"),
        ("rate", {"rate_scale": 3}, "a search for rate chooses rate_per_s: leave rate_scale out of the grid"),
        ("instances", {"instances": 3}, "a search for instances chooses instances: leave instances out"),
    ],
)
def test_a_search_that_cannot_be_is_refused(kind, grid, complaint):
    with pytest.raises(InputError, match=complaint):
        search(cluster(lambda _: True), kind, **grid)
