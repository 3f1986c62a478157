"""Points: what their key depends on, and what their row says."""

from __future__ import annotations

import pytest

import l4sim
from l4sim.sweeps.points import Point, evaluate, is_setting
from l4sim.workload.save import save_trace


def key(**settings):
    return Point({"policy": "round-robin", **settings}).key


def test_a_default_that_is_spelt_out_is_the_same_point():
    assert key() == key(instances=16, kernel=None, rate_per_s=None)


def pairs(trace):
    return set(zip(trace.prompt_tokens.tolist(), trace.output_tokens.tolist(), strict=True))


@pytest.mark.parametrize("changed", [{"policy": "l4"}, {"instances": 8}, {"rate_per_s": 3.0}, {"seed": 1}])
def test_whatever_changes_the_result_changes_the_key(changed):
    assert key(**changed) != key()


def test_the_slo_and_the_price_are_part_of_the_key():
    settings = {"policy": "round-robin"}
    assert len({Point(settings).key, Point(settings, "ttft=1s").key, Point(settings, None, 2.0).key}) == 3


def test_a_file_counts_by_its_content_not_by_its_name(tmp_path):
    trace = l4sim.synthesize("chat", rate_per_s=1, requests=5)
    for name in ("a.parquet", "b.parquet"):
        save_trace(trace, tmp_path / name)
    first = key(trace=str(tmp_path / "a.parquet"))
    assert key(trace=str(tmp_path / "b.parquet")) == first
    save_trace(l4sim.synthesize("chat", rate_per_s=1, requests=5, seed=1), tmp_path / "a.parquet")
    assert key(trace=str(tmp_path / "a.parquet")) != first


def test_a_fleet_counts_by_its_file_and_its_groups_profiles(tmp_path):
    path = tmp_path / "fleet.yaml"
    path.write_text("groups: [{name: a, count: 2}]\n")
    first = key(fleet=str(path))
    assert first not in (key(), key(instances=2))
    path.write_text("groups: [{name: a, count: 2, profile: h100-sxm}]\n")
    assert key(fleet=str(path)) != first


def test_a_setting_beside_a_fleet_that_decides_it_makes_a_failed_row(make_points, tmp_path):
    path = tmp_path / "fleet.yaml"
    path.write_text("groups: [{name: a, count: 2}]\n")
    [point] = make_points(fleet=str(path), instances=16)
    assert evaluate(point)["error"] == "--instances and --fleet exclude one another: the fleet decides that"


@pytest.mark.slow
def test_the_row_holds_what_a_replay_of_the_same_says(make_points):
    [point] = make_points()
    row = evaluate(point)
    trace = l4sim.synthesize(
        prompt_lengths="fixed:tokens=200", output_lengths="fixed:tokens=20", requests=10, rate_per_s=5
    )
    requests = l4sim.replay(trace, "round-robin", l4sim.Cluster(instances=2, model="tiny", kv_blocks=4096)).requests
    assert row["status"] == "done"
    assert row["requests_finished"] == 10
    assert row["ttft_mean_s"] == pytest.approx(requests["ttft_s"].mean())
    assert row["e2e_max_s"] == pytest.approx(requests["e2e_s"].max())


def test_a_price_gives_the_cost_of_a_million_output_tokens(make_points):
    [point] = make_points()
    row = evaluate(Point(point.settings, None, 3.6))
    # Two GPUs at 3.6 USD an hour are 0.002 USD a second; 200 tokens come in the makespan.
    assert row["usd_per_million_output_tokens"] == pytest.approx(0.002 * row["makespan_s"] / 200 * 1e6)


def test_wrong_input_and_unexpected_errors_become_failed_rows(make_points, monkeypatch):
    [point] = make_points(kernel="fa9")
    assert evaluate(point)["status"] == "failed"
    assert "no kernel 'fa9'" in evaluate(point)["error"]

    def broken(*_):
        raise ZeroDivisionError("by\nnought")

    monkeypatch.setattr("l4sim.sweeps.points.compare", broken)
    assert evaluate(make_points()[0]) == {"status": "failed", "error": "ZeroDivisionError: by nought"}


def test_lengths_may_come_from_a_file_with_other_arrivals(make_points, tmp_path):
    source = tmp_path / "source.parquet"
    save_trace(l4sim.synthesize("chat", rate_per_s=1, requests=30, max_model_len=2048), source)
    [point] = make_points(synth={"lengths_from": str(source), "requests": 8, "rate": 2})
    trace, rows = point.trace(), l4sim.load_trace(source)
    assert len(trace) == 8
    assert pairs(trace) <= pairs(rows)


def test_settings_are_told_from_figures():
    assert is_setting("instances")
    assert is_setting("synth.rate_per_s")
    assert is_setting("policy")
    assert not is_setting("ttft_p99_s")


def test_a_concurrency_makes_a_closed_loop_of_a_file_s_or_a_made_trace():
    made = Point({"policy": "round-robin", "concurrency": 3, "synth.lengths": "chat", "synth.requests": 5})
    assert (made.trace().concurrency, len(made.trace())) == (3, 5)
    assert Point({"policy": "round-robin", "concurrency": 2, "limit": 4}).trace().concurrency == 2
    assert is_setting("concurrency")
    row = evaluate(Point({"policy": "round-robin", "concurrency": 2, "rate_per_s": 1.0, "limit": 4}))
    assert "a rate and a concurrency exclude one another" in row["error"]
