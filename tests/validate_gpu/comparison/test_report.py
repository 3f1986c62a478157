"""A report of runs in which requests migrated, were held up, or failed."""

import dataclasses

import pytest

from l4sim.cost.affine import AffineCost
from l4sim.experiment import compare
from tests.validate_gpu.test_lockstep import CPU, POLICIES, TRACE, setup
from validate_gpu.comparison.compare import compare_sides
from validate_gpu.comparison.plots import draw
from validate_gpu.comparison.report import report
from validate_gpu.live.executor import LiveExecutor
from validate_gpu.live_run import LiveResult, LiveRun
from validate_gpu.lockstep import lockstep

pytestmark = pytest.mark.slow

# Slow enough for instances to fill up unevenly.
COST = AffineCost(base_s=8e-3, per_sequence_s=8e-4, per_prefill_token_s=8e-5, per_context_token_s=8e-7)


class Law(LiveExecutor):
    """Runs every step, and then says what it took: the same in every run, so that the same requests migrate."""

    def execute(self, instance, step, decoding):
        super().execute(instance, step, decoding)
        seconds = COST.iteration_s(step.batch)
        self.iterations[-1] = self.iterations[-1]._replace(seconds=seconds)
        return seconds, seconds


@pytest.fixture(scope="module")
def live():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("validate_gpu.lockstep.LiveExecutor", Law)
        return lockstep(TRACE, POLICIES, setup(), CPU)


@pytest.fixture(scope="module")
def predicted():
    return dict(zip(POLICIES, compare(TRACE, POLICIES, setup()), strict=True))


def told(comparison, pictures=None, tolerance_pct=1e9):
    return report(comparison, pictures or {}, tolerance_pct=tolerance_pct, command="l4sim validate", date="today")


def test_migrations_are_told_with_their_blocks_and_pauses_and_drawn(live, predicted, tmp_path):
    comparison = compare_sides(TRACE, setup(), live, predicted, driver="lockstep")
    measured, _ = comparison.migrations["llumnix"]
    assert measured.done > 0
    assert measured.blocks > 0
    assert 0 < measured.pause_mean_s <= measured.mean_s
    assert sum(bucket.copies for bucket in comparison.copies) == sum(len(one.copies) for [one] in live.runs.values())
    assert all(bucket.equal == bucket.copies for bucket in comparison.copies)
    pictures = draw(comparison, tmp_path)
    assert "migrations.png" in [path.name for path in pictures.values()]
    assert "| KV blocks | copies | equal |" in told(comparison, pictures)


def test_failed_requests_are_beyond_any_tolerance_and_their_reason_is_told(live, predicted):
    [one] = live.runs["llumnix"]
    requests = one.run.requests.copy()
    requests.loc[3, ["status", "reason"]] = ["failed", "CUDA out of memory"]
    broken = LiveRun(dataclasses.replace(one.run, requests=requests), one.iterations, one.copies, one.calls)
    failed = LiveResult({**live.runs, "llumnix": [broken]}, live.device)
    comparison = compare_sides(TRACE, setup(), failed, predicted, driver="lockstep")
    assert comparison.beyond(1e9) == ["llumnix"]
    text = told(comparison)
    assert "**llumnix, run 1: 1 requests failed: CUDA out of memory**" in text
    assert "other tables under llumnix" in text


def test_without_repeats_no_policies_are_ranked(live, predicted):
    comparison = compare_sides(TRACE, setup(), live, predicted, driver="lockstep")
    assert comparison.rankings_alike == (0, 0)
    assert "within the noise" in told(comparison)


def test_by_the_walls_clock_there_is_no_schedule_to_repeat(live, predicted):
    comparison = compare_sides(TRACE, setup(), live, predicted, driver="realtime")
    assert comparison.schedules_equal == {}
    assert "row for row" not in told(comparison)
