import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4sim.errors import InputError
from l4sim.policies.l4.demand import geometric_edges, measure_demand

EDGES = np.array([0, 128, 256])


def ints(*values):
    return np.array(values, dtype=np.int64)


def floats(*values):
    return np.array(values, dtype=np.float64)


def test_edges_double_every_so_many_buckets():
    assert geometric_edges(1024, per_octave=1).tolist() == [0, 128, 256, 512, 1024]
    assert geometric_edges(512, per_octave=2).tolist() == [0, 128, 181, 256, 362, 512]


@pytest.mark.parametrize("longest", [1, 100, 128, 1000, 131072, 1010000])
def test_edges_ascend_from_nothing_to_the_longest_context(longest):
    edges = geometric_edges(longest)
    assert edges[0] == 0
    assert edges[-1] == longest
    assert (np.diff(edges) > 0).all()


def test_one_request_by_hand():
    # 100 prompt tokens, 60 output tokens, 2 per second: after its first token it decodes from 101 to 128 in the first
    # bucket, on to 160 in the second.
    demand = measure_demand(ints(100), ints(60), floats(2.0), EDGES)
    assert demand.requests_per_s == 2
    assert demand.arrivals_per_s.tolist() == [2, 0]
    assert demand.prompt_tokens.tolist() == [100, 0]
    assert demand.arrival_weights == pytest.approx([2 / 60, 0])
    assert demand.decode_tokens_per_s.tolist() == [54, 64]
    assert demand.decode_context_tokens.tolist() == [114.5, 144]
    assert demand.decode_weights == pytest.approx([54 / 60, 64 / 60])
    assert demand.crossings_per_s.tolist() == [2, 0]
    assert demand.crossing_weights == pytest.approx([2 / 60, 0])


def test_a_prompt_at_an_edge_belongs_to_the_bucket_above_and_at_the_end_to_the_last():
    demand = measure_demand(ints(128, 255), ints(1, 1), floats(1, 1), EDGES)
    assert demand.arrivals_per_s.tolist() == [0, 2]


def test_what_the_prefix_cache_holds_need_not_be_computed():
    demand = measure_demand(ints(100, 120), ints(5, 5), floats(1, 3), EDGES, ints(20, 60))
    assert demand.prompt_tokens[0] == pytest.approx((100 + 3 * 120) / 4)
    assert demand.new_prompt_tokens[0] == pytest.approx((20 + 3 * 60) / 4)


def test_requests_that_will_be_rejected_do_not_count():
    too_long = measure_demand(ints(100, 250), ints(50, 7), floats(1, 1), EDGES)
    assert too_long.requests_per_s == 1
    too_large = measure_demand(ints(100, 200), ints(50, 7), floats(1, 1), EDGES, kv_tokens=180)
    assert too_large.requests_per_s == 1


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200), st.floats(0.01, 9)), min_size=1, max_size=8),
    st.lists(st.integers(1, 399), max_size=5, unique=True),
)
def test_no_token_and_no_request_is_lost_between_buckets(requests, inner):
    prompt, output, rate = (np.array(column) for column in zip(*requests, strict=True))
    demand = measure_demand(prompt, output, rate, np.array([0, *sorted(inner), 400]))
    assert demand.arrivals_per_s.sum() == pytest.approx(rate.sum())
    assert demand.decode_tokens_per_s.sum() == pytest.approx((output - 1) @ rate)
    assert demand.decode_weights.sum() == pytest.approx((1 - 1 / output) @ rate)
    contexts = demand.decode_tokens_per_s @ demand.decode_context_tokens
    assert contexts == pytest.approx(((prompt + (output + 1) / 2) * (output - 1)) @ rate)


@pytest.mark.parametrize("rates", [[0.0, 0.0], [np.nan, 1.0], [-1.0, 2.0]])
def test_refuses_a_sample_without_a_rate(rates):
    with pytest.raises(InputError, match="positive arrival rate"):
        measure_demand(ints(10, 10), ints(5, 5), np.array(rates), EDGES)


def test_refuses_a_sample_of_nothing_but_too_long_requests():
    with pytest.raises(InputError, match="at most 256 tokens"):
        measure_demand(ints(300), ints(5), floats(1), EDGES)
