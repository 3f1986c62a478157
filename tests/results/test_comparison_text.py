"""The printed comparison."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from l4sim.results.comparison_text import comparison_table, unfinished
from l4sim.results.metrics import summarise


def printed(summaries, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(comparison_table(summaries))
    return console.file.getvalue()


@pytest.fixture
def summary(make_tiny):
    """A policy's summary with the given normalized and E2E latency, of one request, so that mean and P99 agree."""

    def build(policy: str, normalized_s: float, e2e_s: float = 2.0, **request: object):
        row = {"normalized_latency_s": normalized_s, "e2e_s": e2e_s} | request
        return summarise(make_tiny(policy, requests=[row]))

    return build


@pytest.fixture
def short_of_one(make_tiny, no_latencies):
    """A policy that finished one request and rejected another."""
    rejected = {"request_id": "b", "status": "rejected", "reason": "longer than 8,192 tokens"}
    return summarise(make_tiny("l4", requests=[{}, rejected | no_latencies]))


def test_the_table_gives_each_figure_and_its_change_against_the_first_policy(summary):
    text = printed([summary("round-robin", 0.050, 4.0), summary("llumnix", 0.040, 5.0)])
    assert "below: change against round-robin" in " ".join(text.split())
    first, second, below = text.splitlines()[4:7]
    assert first.split()[0] == "round-robin"
    assert first.split()[-3:] == ["4.00*", "4.00*", "50.0"]
    assert second.split()[-3:] == ["5.00", "5.00", "40.0*"]
    assert below.split()[-6:] == ["+25", "%", "+25", "%", "-20", "%"]


def test_the_higher_throughput_is_the_best_one(summary):
    text = printed([summary("a", 1.0, output_tokens=10), summary("b", 1.0, output_tokens=30)])
    assert "15.0*" in text
    assert "5.00*" not in text


def test_no_asterisk_where_all_are_alike(summary):
    assert "*" not in printed([summary("a", 1.0), summary("b", 1.0)]).split("norm.: E2E")[0]


def test_the_table_fits_eighty_columns_with_every_figure_whole(make_run):
    summaries = [summarise(make_run(name)) for name in ("round-robin", "least-outstanding", "l4")]
    text = printed(summaries)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_requests_that_did_not_finish_are_shown_with_their_reason(summary, short_of_one):
    text = " ".join(printed([summary("round-robin", 1.0), short_of_one]).split())
    assert "of 2" in text
    assert "l4 finished 1 of 2 requests: 1 rejected (longer than 8,192 tokens)." in text


def test_different_finished_requests_are_told_even_at_equal_counts(summary):
    lines = unfinished([summary("a", 1.0, request_id="x"), summary("b", 1.0, request_id="y")])
    assert lines == ["The policies finished different requests: their latencies are not of the same traffic."]


def test_only_the_most_frequent_reasons_are_told(make_tiny, no_latencies):
    reasons = ["full", "full", "full", "broken", "broken", "long", "odd", "strange"]
    rows = [{"status": "failed", "reason": reason} | no_latencies for reason in reasons]
    [line] = unfinished([summarise(make_tiny("l4", requests=rows))])
    told = "8 failed (3 full, 2 broken, 1 long, 2 for other reasons)"
    assert line == f"l4 finished 0 of 8 requests: {told}."


def test_what_is_the_same_for_every_policy_is_told_once(make_tiny, no_latencies):
    rows = [{}, {"request_id": "b", "status": "rejected", "reason": "too long"} | no_latencies]
    summaries = [summarise(make_tiny(policy, requests=rows)) for policy in ("llumnix", "l4")]
    assert unfinished(summaries) == ["Every policy finished 1 of 2 requests: 1 rejected (too long)."]


def test_nothing_is_said_of_policies_that_finished_everything(summary):
    assert unfinished([summary("a", 1.0), summary("b", 2.0)]) == []


def test_a_policy_that_finished_nothing_has_dashes(summary, make_tiny, no_latencies):
    nothing = summarise(make_tiny("l4", requests=[{"status": "failed", "reason": "crash"} | no_latencies]))
    assert "–" in printed([summary("llumnix", 1.0), nothing])
