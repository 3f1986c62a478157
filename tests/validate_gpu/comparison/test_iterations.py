import numpy as np
import pyarrow.parquet as pq
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.cost.affine import AffineCost
from tests.validate_gpu.live.small import make_trace
from tests.validate_gpu.test_lockstep import CPU, setup
from validate_gpu.comparison.iterations import errors_by_shape, iteration_table, write_iterations
from validate_gpu.lockstep import lockstep

COST = AffineCost(1e-3, 0.0, 0.0, 1e-6, 0.0)


@pytest.fixture(scope="module")
def live():
    return lockstep(make_trace([0.0, 0.0], [20, 300], [5, 3]), ["round-robin"], setup(instances=1), CPU, repeats=2)


@pytest.fixture(scope="module")
def table(live):
    return iteration_table(live, COST)


@pytest.mark.slow
def test_an_iteration_is_a_row_with_its_lengths_and_its_clock(live, table):
    own = table[table["repeat"] == 1]
    segments = live.runs["round-robin"][1].run.iterations
    assert own["start_s"].tolist() == segments["start_s"].tolist()
    assert own["seconds"].to_numpy() == pytest.approx((segments["end_s"] - segments["start_s"]).to_numpy())
    for name in ("decode_requests", "context_tokens", "prefill_tokens"):
        assert own[name].tolist() == segments[name].tolist()
    # 256 tokens at most: beside the first request's second token there is room for 255 of the second prompt.
    assert own["prefill_chunk_tokens"].tolist()[:4] == [[20], [255], [45], []]
    assert own["prefill_cached_tokens"].tolist()[:4] == [[0], [0], [255], []]
    assert [lengths.tolist() for lengths in own["decode_context_tokens"]][:4] == [[], [21], [22], [23, 301]]


@pytest.mark.slow
def test_prediction_is_the_cost_models_for_the_very_batch(table):
    second = table.iloc[1]
    batch = Batch(np.array([21]), 21, (Prefill(255, 0, samples=False),))
    assert second["predicted_s"] == COST.iteration_s(batch) == pytest.approx(1e-3 + 21e-6)


@pytest.mark.slow
def test_it_is_written_with_lists_as_lists(table, tmp_path):
    found = pq.read_table(write_iterations(table, tmp_path / "iterations.parquet"))
    assert found.column_names == list(table.columns)
    assert found["decode_context_tokens"].to_pylist()[3] == [23, 301]
    assert found["seconds"].to_pylist() == table["seconds"].tolist()


def test_errors_are_told_by_shape(table):
    made = table.head(0).reindex(range(40))
    made["decode_requests"] = [1] * 20 + [2, 3] * 10
    made["context_tokens"] = 100
    made["prefill_tokens"] = [0] * 30 + [20] * 10
    made["seconds"] = 2e-3
    made["predicted_s"] = [2.2e-3] * 20 + [1e-3] * 10 + [2e-3] * 5 + [4e-3] * 5
    found = {(row.kind, row.shape): row for row in errors_by_shape(made)}
    assert found["decodes alone", "1 requests"].bias_pct == pytest.approx(10)
    assert found["decodes alone", "2 to 3 requests"].bias_pct == pytest.approx(-50)
    assert found["decodes alone", "64 to 255 context tokens"].iterations == 30
    prompts = found["with prompts", "16 to 63 prompt tokens"]
    # Half are right, half predicted at twice their time; a quarter of all time.
    assert (prompts.bias_pct, prompts.median_pct, prompts.mape_pct) == pytest.approx((50, 50, 50))
    assert prompts.share_pct == pytest.approx(25)
    # A quarter of the decodes are predicted at half: the median does not see them.
    assert found["decodes alone", ""].median_pct == pytest.approx(10)
    assert found["all", ""].iterations == 40


def test_rare_shapes_have_no_row(table):
    shapes = [row.shape for row in errors_by_shape(table)]
    assert shapes == ["", "", ""]
