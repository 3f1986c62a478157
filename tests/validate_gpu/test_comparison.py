import math

import pytest

from validate_gpu.comparison import compare_figures


def summary(scale):
    latencies = ("ttft_s", "tpot_s", "e2e_s", "normalized_latency_s")
    return {
        "throughput_tokens_per_s": 1000.0 / scale,
        **{name: {"mean": 0.5 * scale, "p99": 2.0 * scale} for name in latencies},
    }


def test_errors_are_shares_of_what_was_measured():
    figures = {figure.metric: figure for figure in compare_figures(summary(1.0), summary(1.25))}
    assert figures["throughput_tokens_per_s"].error_pct == pytest.approx(-20)
    assert figures["ttft_s_p99"] == ("ttft_s_p99", 2.0, 2.5, pytest.approx(25))
    assert len(figures) == 9


def test_nothing_measured_has_no_error():
    assert math.isnan(compare_figures(summary(1) | {"throughput_tokens_per_s": 0.0}, summary(1))[0].error_pct)
