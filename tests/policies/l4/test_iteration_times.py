import numpy as np
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.cost.affine import AffineCost
from l4sim.policies.l4.demand import geometric_edges, measure_demand
from l4sim.policies.l4.iteration_times import SIZES, iteration_times, prefill_seconds, stage_lengths

COST = AffineCost(
    base_s=5e-3, per_sequence_s=1e-5, per_prefill_token_s=2e-5, per_context_token_s=1e-8, per_prefill_pair_s=1e-10
)
RANDOM = np.random.default_rng(0)
DEMAND = measure_demand(
    RANDOM.integers(10, 20_000, 500),
    RANDOM.integers(1, 2_000, 500),
    np.full(500, 0.01),
    geometric_edges(32_768),
)
BUCKETS = len(DEMAND.edges_tokens) - 1


def mean_context(first, last):
    tokens = DEMAND.decode_tokens_per_s[first:last]
    return tokens @ DEMAND.decode_context_tokens[first:last] / tokens.sum()


@pytest.mark.parametrize("count", [1, 8, 64])
def test_stand_in_lengths_hold_as_many_tokens_as_the_mix(count):
    lengths = stage_lengths(DEMAND, 0, BUCKETS, count)
    assert len(lengths) == count
    # Buckets are taken to be filled evenly, which they are not quite.
    assert lengths.mean() == pytest.approx(mean_context(0, BUCKETS), rel=0.03)


def test_stand_in_lengths_stay_in_their_range_and_are_not_sorted():
    lengths = stage_lengths(DEMAND, 4, 8, 16)
    assert lengths.min() >= DEMAND.edges_tokens[4]
    assert lengths.max() <= DEMAND.edges_tokens[8]
    assert (np.diff(lengths) > 0).any()
    assert (np.diff(lengths) < 0).any()


def test_times_are_the_cost_models_where_lengths_add_in_proportion():
    ranges = [(0, BUCKETS), (3, 9)]
    times = iteration_times(DEMAND, COST, ranges, max_num_seqs=1024, kv_tokens=10**7)
    assert times.sizes.tolist() == list(SIZES)
    for row, span in zip(times.tau_s, ranges, strict=True):
        exact = COST.base_s + times.sizes * (COST.per_sequence_s + COST.per_context_token_s * mean_context(*span))
        assert row == pytest.approx(exact, rel=1e-3)
    assert times.floor_s == pytest.approx(COST.base_s + COST.per_sequence_s + COST.per_context_token_s)


def test_batches_are_no_larger_than_the_engine_allows():
    times = iteration_times(DEMAND, COST, [(0, BUCKETS)], max_num_seqs=20, kv_tokens=10**7)
    assert times.sizes.tolist() == [1, 8, 20]


class _LongestCounts:
    """A kernel that pads every request to the longest one."""

    def iteration_s(self, batch: Batch) -> float:
        contexts = batch.decode_context_tokens
        return 1e-3 + 1e-8 * len(contexts) * int(contexts.max())

    def decode_segment_s(self, batch: Batch, iterations: int) -> tuple[float, float]:
        raise NotImplementedError


def test_unequal_lengths_cost_what_the_kernel_charges_for_them():
    ranges = [(9, 10), (0, 10)]
    times = iteration_times(DEMAND, _LongestCounts(), ranges, 256, 10**7)
    narrow, wide = (
        (tau_s[2] - 1e-3) / (32e-8 * mean_context(*span)) for tau_s, span in zip(times.tau_s, ranges, strict=True)
    )
    # Padding of half an octave, and of all lengths up to the same bound.
    assert 1 < narrow < 1.25
    assert wide > 1.5


@pytest.mark.parametrize(("prompt", "new"), [(100, 100), (5000, 5000), (8192, 8192), (100_000, 100_000), (9000, 700)])
def test_prefill_seconds_are_those_of_all_chunks(prompt, new):
    nothing = np.empty(0, dtype=np.int64)
    done, exact_s, chunks = prompt - new, 0.0, 0
    while done < prompt:
        tokens = min(8192, prompt - done)
        exact_s += COST.iteration_s(Batch(nothing, 0, (Prefill(tokens, done),)))
        done += tokens
        chunks += 1
    seconds, count = prefill_seconds(COST, np.array([0.0, prompt]), np.array([0.0, new]), 8192)
    assert seconds == pytest.approx([0, exact_s])
    assert count.tolist() == [0, chunks]
