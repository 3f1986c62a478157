"""What the latency pictures draw."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.results.plots.latency import MIN_PER_BIN, latency_by_length, latency_cdf
from l4sim.results.plots.style import KNOWN


def test_the_cdf_steps_up_by_one_share_at_every_latency(make_tiny, no_latencies):
    latencies_s = [4.0, 1.0, 2.0]
    rows = [{"request_id": str(number), "e2e_s": e2e_s} for number, e2e_s in enumerate(latencies_s)]
    figure = latency_cdf([make_tiny("l4", requests=[*rows, {"status": "rejected"} | no_latencies])])
    e2e, ttft = figure.axes
    [line] = e2e.lines
    assert line.get_xdata().tolist() == [1.0, 2.0, 4.0]
    assert line.get_ydata() == pytest.approx([1 / 3, 2 / 3, 1])
    assert line.get_color() == KNOWN["l4"]
    assert e2e.get_xscale() == "log"
    assert (e2e.get_xlabel(), ttft.get_xlabel()) == ("E2E latency (s)", "TTFT (s)")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["l4 (1 unfinished)"]


def test_a_long_cdf_is_thinned_but_keeps_its_ends(make_run):
    run = make_run("l4", requests=3_000)
    [line] = latency_cdf([run]).axes[0].lines
    assert len(line.get_xdata()) < 1_000
    assert line.get_xdata()[-1] == run.requests["e2e_s"].max()
    assert line.get_ydata()[-1] == 1.0


def test_latency_by_length_draws_the_median_and_p95_of_each_bin(make_tiny):
    short = [{"prompt_tokens": 90, "output_tokens": 10, "e2e_s": float(second)} for second in range(1, 12)]
    long = [{"prompt_tokens": 9_990, "output_tokens": 10, "e2e_s": 50.0} for _ in range(MIN_PER_BIN)]
    too_few = [{"prompt_tokens": 990, "output_tokens": 10, "e2e_s": 500.0} for _ in range(MIN_PER_BIN - 1)]
    median, p95 = latency_by_length([make_tiny("l4", requests=short + too_few + long)]).axes[0].lines
    assert np.array(median.get_xydata()) == pytest.approx(np.array([[100, 6.0], [10_000, 50.0]]))
    assert np.array(p95.get_xydata()) == pytest.approx(np.array([[100, 10.5], [10_000, 50.0]]))


def test_normalized_latency_is_drawn_in_milliseconds(make_tiny):
    rows = [{"prompt_tokens": tokens, "normalized_latency_s": 0.025} for tokens in [100] * MIN_PER_BIN]
    ax = latency_by_length([make_tiny("l4", requests=rows)]).axes[1]
    assert ax.lines[0].get_ydata() == pytest.approx([25.0])
    assert ax.get_ylabel().endswith("(ms)")


def test_without_finished_requests_there_is_nothing_to_draw(make_tiny, no_latencies):
    run = make_tiny(requests=[{"status": "failed"} | no_latencies])
    assert latency_cdf([run]) is None
    assert latency_by_length([run]) is None


def test_too_few_requests_of_any_length_are_not_drawn(make_tiny):
    rows = [{"prompt_tokens": 10**power} for power in range(1, 5)]
    assert latency_by_length([make_tiny("l4", requests=rows)]) is None
