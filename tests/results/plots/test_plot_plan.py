"""What the picture of the plan draws."""

from __future__ import annotations

from itertools import pairwise

import pytest

from l4sim.policies.plan import Stage
from l4sim.results.plots.plan import plan_and_migrations, stage_bounds

PLAN = (Stage(0, 1_000, (0, 1)), Stage(1_000, 8_000, (2,)))


def test_bounds_step_when_a_boundary_moves(make_tiny):
    run = make_tiny(
        plan=PLAN,
        boundaries=[{"time_s": 5.0, "stage": 0, "hi_tokens": 1_200}, {"time_s": 8.0, "stage": 0, "hi_tokens": 900}],
    )
    times_s, bounds = stage_bounds(run, PLAN, end_s=10.0)
    assert times_s.tolist() == [0, 5, 8, 10]
    assert bounds.tolist() == [[1_000, 1_200, 900, 900], [8_000] * 4]


def test_stages_are_bands_labelled_with_their_instances(make_tiny):
    ax = plan_and_migrations([make_tiny(iterations=[{"end_s": 10.0}], plan=PLAN)]).axes[0]
    tops = [band.get_paths()[0].vertices[:, 1].max() for band in ax.collections]
    assert tops == [1_000, 8_000]
    assert [text.get_text() for text in ax.texts] == ["stage 0: 2 instances", "stage 1: 1 instance"]
    assert (ax.get_ylabel(), ax.get_yscale()) == ("context length (tokens)", "log")


def test_migrations_are_marked_at_their_time_and_length_by_kind(make_tiny):
    never = dict.fromkeys(("start_s", "pause_start_s", "end_s", "pause_s"), float("nan"))
    run = make_tiny(
        plan=PLAN,
        migrations=[
            {"start_s": 1.0, "context_tokens": 1_001},
            {"start_s": 2.0, "context_tokens": 500, "kind": "rebalance"},
            {"asked_s": 3.0, "context_tokens": 1_002, "status": "refused"} | never,
        ],
    )
    figure = plan_and_migrations([run])
    marks = {line.get_marker(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert marks == {"^": [[1.0, 1_001]], "o": [[2.0, 500]], "x": [[3.0, 1_002]]}
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["refused or aborted", "rebalance", "handover"]


def test_a_request_that_had_not_begun_is_marked_at_the_bottom(make_tiny):
    moved = [{"context_tokens": 0, "kind": "rebalance", "start_s": 1.0}, {"context_tokens": 400, "start_s": 2.0}]
    ax = plan_and_migrations([make_tiny(plan=PLAN, migrations=moved)]).axes[0]
    # The shortest that had begun is at 400 tokens; the picture goes down to a quarter of that.
    assert ax.get_ylim()[0] == pytest.approx(100)
    assert [line.get_xydata().tolist() for line in ax.lines if line.get_marker() == "o"] == [[[1.0, 100.0]]]


def test_a_policy_without_plan_or_migrations_has_no_panel(make_tiny):
    plain = make_tiny("round-robin", iterations=[{}])
    moving = make_tiny("llumnix", migrations=[{"kind": "rebalance"}])
    assert plan_and_migrations([plain]) is None
    titles = [ax.get_title(loc="left") or ax.get_title() for ax in plan_and_migrations([plain, moving]).axes]
    assert titles == ["llumnix"]


@pytest.mark.parametrize("stages", [2, 16])
def test_labels_stay_apart_whatever_the_number_of_stages(make_run, stages):
    run = make_run("l4", stages=stages, instances=16)
    heights = [text.get_position()[1] for text in plan_and_migrations([run]).axes[0].texts]
    assert all(high - low >= 0.06 for low, high in pairwise(heights))
