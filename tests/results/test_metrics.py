"""A run's summary, against answers worked by hand."""

from __future__ import annotations

import math

import pytest

from l4sim.errors import InputError
from l4sim.results.metrics import goodput_requests_per_s, slo_attainment, summarise


@pytest.fixture
def run(make_tiny, no_latencies):
    """Three finished requests (at 1+2, 2+4 and 3+8 s), one rejected, one failed; two instances of four were busy."""
    return make_tiny(
        requests=[
            {"request_id": "a", "arrival_s": 1.0, "output_tokens": 10, "ttft_s": 0.5, "tpot_s": 0.1, "e2e_s": 2.0},
            {"request_id": "b", "arrival_s": 2.0, "output_tokens": 1, "ttft_s": 4.0, "tpot_s": math.nan, "e2e_s": 4.0},
            {"request_id": "c", "arrival_s": 3.0, "output_tokens": 29, "ttft_s": 1.5, "tpot_s": 0.3, "e2e_s": 8.0}
            | {"prompt_tokens": 20, "cached_tokens": 10, "preemptions": 2},
            {"request_id": "d", "arrival_s": 4.0, "status": "rejected", "reason": "too long"} | no_latencies,
            {"request_id": "e", "arrival_s": 5.0, "status": "failed", "reason": "crash", "preemptions": 1}
            | no_latencies,
        ],
        iterations=[
            {"instance": 0, "start_s": 1.0, "end_s": 6.0},
            {"instance": 1, "start_s": 2.0, "end_s": 3.0},
            {"instance": 1, "start_s": 9.0, "end_s": 11.0},
        ],
        migrations=[
            {"status": "done"},
            {"status": "done"},
            {"status": "refused", "reason": "no room"},
            {"status": "aborted", "reason": "finished"},
        ],
        instances=4,
    )


def test_requests_are_counted_by_status_with_reasons(run):
    summary = summarise(run)
    assert summary["requests"] == {"total": 5, "finished": 3, "rejected": 1, "failed": 1}
    assert summary["rejected_reasons"] == {"too long": 1}
    assert summary["failed_reasons"] == {"crash": 1}


def test_throughput_counts_finished_requests_over_first_arrival_to_last_finish(run):
    summary = summarise(run)
    assert summary["makespan_s"] == 11.0 - 1.0
    assert summary["throughput_requests_per_s"] == pytest.approx(3 / 10)
    assert summary["throughput_tokens_per_s"] == pytest.approx((10 + 1 + 29) / 10)


def test_latencies_have_mean_linear_percentiles_and_maximum(run):
    ttft_s = summarise(run)["ttft_s"]
    # Sorted 0.5, 1.5, 4.0: the median is the middle one, P90 lies 0.8 of the way from the middle to the last.
    expected = {"mean": 2.0, "p50": 1.5, "p90": 3.5, "p95": 3.75, "p99": 3.95, "max": 4.0}
    assert ttft_s == pytest.approx(expected)


def test_one_token_outputs_have_no_tpot_and_do_not_count_in_it(run):
    assert summarise(run)["tpot_s"]["mean"] == pytest.approx((0.1 + 0.3) / 2)


def test_migrations_preemptions_and_prefix_hits_are_summed(run):
    summary = summarise(run)
    assert summary["migrations"] == {"done": 2, "refused": 1, "aborted": 1}
    assert summary["refused_reasons"] == {"no room": 1}
    assert summary["aborted_reasons"] == {"finished": 1}
    assert summary["preemptions"] == 3
    assert summary["prefix_hit_share"] == pytest.approx(10 / (10 + 10 + 20))


def test_utilisation_is_the_busy_share_of_all_instances_idle_ones_included(run):
    assert summarise(run)["mean_utilisation"] == pytest.approx((5 + 1 + 2) / (4 * 10))


def test_the_finished_sets_digest_tells_other_requests_apart_at_equal_counts(make_tiny, no_latencies):
    first, second = {"request_id": "a"}, {"request_id": "b"}
    rejected = {"status": "rejected"} | no_latencies
    one = summarise(make_tiny("one", requests=[first, second | rejected]))
    other = summarise(make_tiny("other", requests=[first | rejected, second]))
    again = summarise(make_tiny("again", requests=[first, second | rejected]))
    assert one["requests"] == other["requests"]
    assert one["finished_sha256"] == again["finished_sha256"] != other["finished_sha256"]


def test_the_finished_sets_digest_does_not_depend_on_the_rows_order(make_tiny):
    rows = [{"request_id": "a"}, {"request_id": "b"}]
    forward, backward = (summarise(make_tiny(requests=order)) for order in (rows, rows[::-1]))
    assert forward["finished_sha256"] == backward["finished_sha256"]


def test_a_run_in_which_nothing_finished_has_no_throughput_and_no_latencies(make_tiny, no_latencies):
    summary = summarise(make_tiny(requests=[{"status": "rejected", "reason": "too long"} | no_latencies]))
    assert summary["throughput_requests_per_s"] == 0.0
    assert summary["mean_utilisation"] == 0.0
    assert all(math.isnan(figure) for figure in summary["e2e_s"].values())
    assert math.isnan(summary["prefix_hit_share"])


def test_slo_attainment_counts_unfinished_requests_as_missed(run):
    assert slo_attainment(run, ttft_s=1.5) == pytest.approx(2 / 5)
    assert slo_attainment(run, ttft_s=1.5, tpot_s=0.2) == pytest.approx(1 / 5)


def test_a_one_token_output_meets_any_tpot(run):
    assert slo_attainment(run, tpot_s=0.2) == pytest.approx(2 / 5)


def test_goodput_is_the_attaining_requests_over_the_makespan(run):
    assert goodput_requests_per_s(run, ttft_s=1.5) == pytest.approx(2 / 10)


@pytest.mark.parametrize("limits", [{}, {"ttft_s": 0.0}, {"tpot_s": -1.0}, {"ttft_s": math.nan}])
def test_an_slo_without_a_positive_limit_is_refused(run, limits):
    with pytest.raises(InputError, match="SLO"):
        slo_attainment(run, **limits)
