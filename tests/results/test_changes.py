"""How much policies differ, how sure that is, and who loses."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.results.changes import (
    CLASS_EDGES_TOKENS,
    HEADLINE,
    METRICS,
    compare_runs,
    length_classes,
    paired_by_seed,
)
from l4sim.results.metrics import summarise

THROUGHPUT = METRICS[-1]


@pytest.fixture(scope="module")
def compared(make_run):
    """1,200 requests under five policies; least-harm is the best rival, and l4 better still."""
    slowness = {"vllm": 1.3, "llumnix": 1.2, "least-harm": 1.0, "l4": 0.9, "oracle-length": 0.5}
    runs = [make_run(name, requests=1200, slowness=factor) for name, factor in slowness.items()]
    return runs, compare_runs(runs)


def test_all_are_held_against_the_best_rival(compared):
    _, comparison = compared
    assert (comparison.headline, comparison.against) == ("l4", "least-harm")
    assert {each.policy for each in comparison.changes} == {"vllm", "llumnix", "l4", "oracle-length"}
    assert {each.against for each in comparison.changes} == {"least-harm"}


def test_a_change_is_that_of_the_summary_s_figures(compared):
    runs, comparison = compared
    own, base = (summarise(next(run for run in runs if run.policy == name)) for name in ("l4", "least-harm"))
    for metric in METRICS:
        figures = [one[metric.name] if metric.statistic == "rate" else one[metric.name][metric.statistic]
                   for one in (own, base)]  # fmt: skip
        assert comparison.change("l4", metric).change == pytest.approx(figures[0] / figures[1] - 1)


def test_what_is_clear_is_told_and_lies_in_its_interval(compared):
    _, comparison = compared
    better, worse = comparison.change("l4"), comparison.change("vllm")
    assert (better.verdict, worse.verdict) == ("better", "worse")
    for each in (better, worse):
        assert each.low < each.change < each.high


def test_it_is_the_same_whenever_it_is_asked(compared):
    runs, comparison = compared
    assert compare_runs(runs) == comparison


def test_the_same_run_twice_is_neither_better_nor_worse(make_run):
    comparison = compare_runs([make_run("vllm", requests=1200), make_run("llumnix", requests=1200)])
    for metric in METRICS:
        found = comparison.change("llumnix", metric)
        assert (found.change, found.verdict) == (0.0, "cannot tell")


def test_pairing_by_request_tells_what_two_separate_runs_could_not(make_run):
    paired = compare_runs([make_run("vllm", requests=1200), make_run("llumnix", requests=1200, slowness=1.03)])
    apart = compare_runs([make_run("vllm", requests=1200), make_run("llumnix", requests=1200, slowness=1.03, seed=1)])
    assert paired.change("llumnix").verdict == "worse"
    assert apart.change("llumnix").half > 5 * paired.change("llumnix").half


def test_a_short_run_has_no_interval_and_says_why(make_run):
    comparison = compare_runs([make_run("vllm", requests=9), make_run("llumnix", requests=9, slowness=2)])
    found = comparison.change("llumnix")
    assert found.why == "too short to tell: 9 requests"
    assert np.isnan(found.low)
    assert found.change > 0


def test_a_p99_of_too_few_requests_has_no_interval(make_run):
    comparison = compare_runs([make_run("vllm", requests=400), make_run("llumnix", requests=400, slowness=2)])
    assert comparison.change("llumnix").why == ""
    assert comparison.change("llumnix", METRICS[2]).why == "too few to tell: 400 requests"


def test_changes_by_length_class_are_those_of_its_requests(compared):
    runs, comparison = compared
    own, base = (next(run for run in runs if run.policy == name).requests for name in ("l4", "least-harm"))
    middle = (own["prompt_tokens"] + own["output_tokens"]).between(1024, 4095)
    expected = own["normalized_latency_s"][middle].mean() / base["normalized_latency_s"][middle].mean() - 1
    found = comparison.change("l4", HEADLINE, "1K to 4K")
    assert found.change == pytest.approx(expected)
    [row] = [each for each in comparison.changes if each.policy == "l4" and each.length_class == "1K to 4K"
             and (each.metric, each.statistic) == HEADLINE[:2]]  # fmt: skip
    assert row.requests == middle.sum()


def test_who_loses_is_held_against_the_rival_that_serves_it_best(make_run):
    runs = {name: make_run(name, requests=1200) for name in ("vllm", "least-harm", "l4")}
    tokens = runs["l4"].requests["prompt_tokens"] + runs["l4"].requests["output_tokens"]
    runs["l4"].requests["normalized_latency_s"] *= np.where(tokens >= 4096, 1.2, 0.8)
    runs["vllm"].requests["normalized_latency_s"] *= np.where(tokens >= 16384, 0.9, 1.1)
    losers = {each.length_class: each for each in compare_runs(list(runs.values())).losers}
    assert "1K to 4K" not in losers
    assert losers["4K to 16K"].against == "least-harm"
    assert losers["16K to 32K"].against == "vllm"
    assert losers["16K to 32K"].change.change == pytest.approx(1.2 / 0.9 - 1)


def test_requests_that_not_all_finished_are_left_out_and_told(make_run):
    comparison = compare_runs([make_run("vllm", rejected=5), make_run("llumnix")])
    assert comparison.requests == 395
    assert not comparison.same_requests


def test_length_classes_begin_at_their_edges():
    classes = length_classes(np.array([1, 1023, 1024, 65535, 65536]))
    assert {name: rows.tolist() for name, rows in classes.items()} == {
        "below 1K": [0, 1],
        "1K to 4K": [2],
        "32K to 64K": [3],
        "above 64K": [4],
    }
    assert CLASS_EDGES_TOKENS[0] == 1024


def test_over_seeds_the_change_is_a_geometric_mean_with_student_s_interval():
    found = paired_by_seed(np.array([0.9, 1.8, 3.6]), np.array([1.0, 2.0, 4.0]))
    assert found.change == pytest.approx(-0.1)
    assert found.verdict == "better"
    ratios = np.array([0.8, 1.0, 1.3])
    wide = paired_by_seed(ratios, np.ones(3))
    logs = np.log(ratios)
    # Student's factor for two degrees of freedom.
    half = 4.302653 * logs.std(ddof=1) / np.sqrt(3)
    assert (np.log1p(wide.low), np.log1p(wide.high)) == pytest.approx((logs.mean() - half, logs.mean() + half))
    assert wide.verdict == "cannot tell"


def test_more_throughput_is_better():
    assert paired_by_seed(np.array([1.1, 1.11]), np.ones(2), higher_is_better=True).verdict == "better"


def test_one_seed_tells_nothing():
    assert paired_by_seed(np.array([0.5]), np.ones(1)).why == "too few to tell: 1 seed"
