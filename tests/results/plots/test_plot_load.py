"""What the pictures of load over time draw."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.results.plots.load import heterogeneity, instance_heatmaps, queue_length


@pytest.mark.slow
def test_heatmaps_show_every_instance_with_one_scale_for_all_policies(make_tiny):
    busy = make_tiny(
        "l4", iterations=[{"decode_requests": 3, "prefill_requests": 1, "kv_blocks_used": 50}], instances=4
    )
    other = make_tiny("llumnix", iterations=[{"decode_requests": 8, "kv_blocks_used": 25, "end_s": 0.5}], instances=4)
    figure = instance_heatmaps([busy, other])
    images = {ax.get_title(): ax.images[0] for ax in figure.axes if ax.get_title()}
    batch = images["l4: batch size (requests)"]
    table = np.asarray(batch.get_array())
    assert table.shape[0] == 4
    assert table[0] == pytest.approx(4.0)
    assert table[1:] == pytest.approx(0.0)
    assert np.asarray(images["l4: KV cache used (%)"].get_array())[0] == pytest.approx(50.0)
    assert batch.get_clim() == images["llumnix: batch size (requests)"].get_clim() == pytest.approx((0, 8))


@pytest.mark.slow
def test_heatmaps_are_blank_after_a_runs_end(make_tiny):
    short = make_tiny("short", iterations=[{"end_s": 0.5}])
    figure = instance_heatmaps([short, make_tiny("long", iterations=[{"end_s": 1.0}])])
    table = figure.axes[0].images[0].get_array()
    half = table.shape[1] // 2
    assert not np.ma.getmaskarray(table)[0, :half].any()
    assert np.ma.getmaskarray(table)[0, half:].all()


def test_the_queue_is_summed_over_instances(make_tiny):
    run = make_tiny(
        iterations=[{"instance": 0, "waiting_requests": 3}, {"instance": 1, "waiting_requests": 4, "end_s": 0.5}]
    )
    figure = queue_length([run])
    waiting = figure.axes[0].lines[0].get_ydata()
    assert waiting[0] == pytest.approx(7)
    assert waiting[-1] == pytest.approx(3)
    assert figure.legends[0].get_texts()[0].get_text() == "l4 (peak 7.00)"


def test_heterogeneity_is_std_over_mean_weighted_by_decode_time(make_tiny):
    # Mean contexts 100 and 50 tokens: 0.5 for three seconds, 2.0 for one; the prefill between them does not count.
    run = make_tiny(
        iterations=[
            {"start_s": 0, "end_s": 3, "decode_requests": 2, "context_tokens": 200, "context_std_tokens": 50.0},
            {"start_s": 3, "end_s": 5, "decode_requests": 0, "context_tokens": 0, "prefill_requests": 1},
            {"start_s": 5, "end_s": 6, "decode_requests": 4, "context_tokens": 200, "context_std_tokens": 100.0},
        ]
    )
    figure = heterogeneity([run])
    line = figure.axes[0].lines[0].get_ydata()
    assert line[0] == pytest.approx(0.5)
    assert line[-1] == pytest.approx(2.0)
    assert np.isnan(line[len(line) * 4 // 6])
    assert figure.legends[0].get_texts()[0].get_text() == f"l4 (mean {(3 * 0.5 + 2.0) / 4:.2f})"


@pytest.mark.slow
def test_every_instance_has_its_own_heterogeneity_on_one_scale(make_tiny):
    mixed = {"decode_requests": 2, "context_tokens": 200, "context_std_tokens": 50.0}
    run = make_tiny("l4", iterations=[mixed, {**mixed, "instance": 1, "end_s": 0.5}], instances=3)
    other = make_tiny("vllm", iterations=[{**mixed, "context_std_tokens": 150.0}], instances=3)
    _, first, second, _ = heterogeneity([run, other]).axes
    table = np.ma.filled(first.images[0].get_array(), np.nan)
    assert table[0] == pytest.approx(0.5)
    half = table.shape[1] // 2
    assert table[1, :half] == pytest.approx(0.5)
    # Neither an instance that has ended nor one that never ran decodes.
    assert np.isnan(table[1, half:]).all()
    assert np.isnan(table[2]).all()
    assert first.images[0].get_clim() == second.images[0].get_clim() == pytest.approx((0, 1.5))


def test_runs_without_segments_are_left_out(make_tiny):
    idle, busy = make_tiny("idle"), make_tiny("busy", iterations=[{}])
    assert instance_heatmaps([idle]) is None
    assert queue_length([idle]) is None
    assert heterogeneity([make_tiny(iterations=[{"decode_requests": 0}])]) is None
    assert len(queue_length([idle, busy]).axes[0].lines) == 1
