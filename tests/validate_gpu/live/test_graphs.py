import itertools

import pytest
import torch

from l4sim.policies.routers import RoundRobin
from l4sim.simulator import Rules, simulate
from l4sim.specs.placement import Placement
from tests.validate_gpu.live.live_runs import COST, ImposedTimes
from tests.validate_gpu.live.small import CPU, MODEL, device_engine, engine_config, make_trace
from tests.validate_gpu.live.stub_flashinfer import stub_module
from validate_gpu.live.engine import flashinfer_kernels
from validate_gpu.live.graphs import CAPTURED_TOKENS, bucket_sizes, piece_sizes


class Replays:
    """A capture that runs its function again into the same tensor, as a graph's replay does."""

    def __init__(self):
        self.captured = []
        self.replayed = []

    def __call__(self, run):
        result = run().clone()
        number = len(self.captured)
        self.captured.append(len(result))

        def replay():
            self.replayed.append(self.captured[number])
            result.copy_(run())

        return replay, result


def engines(max_num_seqs=6):
    """The same engine eagerly by PyTorch, and by FlashInfer's stubs with captured decodes."""
    config = engine_config(max_num_seqs=max_num_seqs)
    replays = Replays()
    captured = flashinfer_kernels(
        stub_module(), MODEL, config, CPU, torch.float32, path="tensor-cores", graphs=True, capture=replays
    )
    return config, device_engine(config, 1), device_engine(config, 1, captured), replays


def serve(engine, config, trace):
    """All tokens sampled for a trace on one instance."""
    simulate(
        trace,
        router=RoundRobin(),
        cluster=Placement(1),
        engine=config,
        cost=COST,
        kv_bytes_per_token=1,
        rules=Rules(fast_forward=False),
        executor=ImposedTimes([engine]),
    )
    return {request: tokens.tolist() for request, tokens in engine.sequences.sampled.items()}


@pytest.mark.slow
def test_replayed_decodes_sample_what_eager_ones_do():
    config, eager, captured, replays = engines()
    trace = make_trace([0, 0, 0, 0.01, 0.02], [5, 9, 3, 7, 4], [12, 3, 20, 8, 1])
    assert serve(captured, config, trace) == serve(eager, config, trace)
    # Two layers are three pieces, for up to 8, 16 and 24 tokens; then decodes, whole.
    assert replays.captured == [24] * 3 + [16] * 3 + [8] * 3 + [6, 4, 2, 1]
    # Up to four decode at once; three are padded to four. Steps with prompts have up to 12 tokens.
    assert set(replays.replayed) == {16, 8, 4, 2, 1}


@pytest.mark.slow
def test_every_buffer_is_allocated_before_serving():
    config, _, captured, replays = engines()
    before = len(replays.captured)
    serve(captured, config, make_trace([0], [5], [6]))
    assert len(replays.captured) == before


@pytest.mark.parametrize(
    ("max_num_seqs", "expected"),
    [(1, (1,)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8)), (20, (1, 2, 4, 8, 16, 20))],
)
def test_small_buckets(max_num_seqs, expected):
    assert bucket_sizes(max_num_seqs) == expected


def test_large_buckets_grow_by_16_and_end_at_512():
    sizes = bucket_sizes(1024)
    assert sizes[-1] == 512
    assert [b - a for a, b in itertools.pairwise(sizes) if a >= 256] == [16] * 16


@pytest.mark.parametrize(("max_tokens", "expected"), [(8, (8,)), (24, (8, 16, 24)), (100, (8, 16, 32, 64, 96, 100))])
def test_pieces_of_few_tokens(max_tokens, expected):
    assert piece_sizes(max_tokens) == expected


def test_no_piece_is_larger_than_what_is_captured():
    assert piece_sizes(8192)[-1] == CAPTURED_TOKENS
    assert max(b / a for a, b in itertools.pairwise(piece_sizes(8192)) if a >= 256) <= 1.125


@pytest.mark.slow
def test_without_decodes_captured_whole_they_run_in_pieces():
    config = engine_config()
    replays = Replays()
    captured = flashinfer_kernels(
        stub_module(), MODEL, config, CPU, torch.float32, path="batch-attention", graphs=True, capture=replays
    )
    trace = make_trace([0, 0, 0, 0.01, 0.02], [5, 9, 3, 7, 4], [12, 3, 20, 8, 1])
    assert serve(device_engine(config, 1, captured), config, trace) == serve(device_engine(config, 1), config, trace)
    assert set(replays.replayed) == {16, 8}
