"""No figure that a run prints or writes changes unnoticed: see digests.py for how all of them are checked."""

from __future__ import annotations

import pytest

from l4sim.policies.registry import POLICIES
from tests.figures.digests import ROOT, Kept, differences, digests, read_kept, rounding
from tests.figures.runs import POLICIES as HELD
from tests.figures.runs import FigureRun, all_runs

RUNS = list(all_runs())


@pytest.fixture(scope="module")
def kept() -> Kept:
    return read_kept()


@pytest.mark.slow
@pytest.mark.parametrize("run", [run for run in RUNS if run.quick], ids=lambda run: run.name)
def test_a_run_leaves_the_figures_that_were_recorded(run: FigureRun, kept: Kept):
    assert differences(kept.runs[run.name], digests(run, ROOT, None), exact=kept.rounding == rounding()) == []


def test_every_run_is_recorded(kept: Kept):
    assert list(kept.runs) == [run.name for run in RUNS]


def test_every_bundled_policy_has_a_run():
    assert tuple(POLICIES) == tuple(HELD)


def test_quick_runs_need_nothing_but_the_repository():
    assert not any(run.needs_shared for run in RUNS if run.quick)


def test_a_column_that_changed_came_or_went_is_named():
    kept = {"requests[l4].ttft_s": "float64[2] 01", "requests[l4].status": "text[2] 02", "gone": "int64[2] 03"}
    found = {"requests[l4].ttft_s": "float64[2] 04", "requests[l4].status": "text[2] 05", "new": "int64[2] 03"}
    fraction, text, gone, new = differences(kept, found)
    assert fraction == "requests[l4].ttft_s: float64[2] 01 was kept, float64[2] 04 is found"
    assert text.startswith("requests[l4].status: ")
    assert (gone, new) == ("gone: is gone", "new: is new")
    assert differences(kept, found, exact=False) == [text, gone, new]


def test_a_run_that_is_refused_says_why():
    with pytest.raises(RuntimeError, match=r"l4sim replay nowhere: l4sim: nowhere"):
        digests(FigureRun("none", "replay nowhere"), ROOT, None)
