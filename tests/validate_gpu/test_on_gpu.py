"""What only a GPU with FlashInfer can show; skipped everywhere else."""

import dataclasses
import importlib.util

import numpy as np
import pytest
import torch

from l4sim.engine.config import EngineConfig
from l4sim.specs.model import load_model, with_layers
from validate_gpu.live.build import LiveOptions, build_engine
from validate_gpu.live.kv import copy_kv, equal_kv
from validate_gpu.live.sequences import Sequences
from validate_gpu.measure.iteration_work import iteration_inputs
from validate_gpu.measure.points import IterationPoint

pytestmark = [
    pytest.mark.skipif(
        not torch.cuda.is_available() or importlib.util.find_spec("flashinfer") is None,
        reason="needs a GPU and FlashInfer",
    ),
    # PyTorch's compiler imports parts of PyTorch that are deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

MODEL = with_layers(load_model("llama-3.2-3b"), 4)
CONFIG = EngineConfig(
    kv_blocks=2000,
    max_model_len=32_768,
    max_num_seqs=16,
    max_num_batched_tokens=2048,
    block_tokens=16,
    prefix_caching=False,
)
CONTEXTS = (1, 16, 17, 700, 9000, 33)
PATHS = ("tensor-cores", "cuda-cores", "batch-attention")


# Decodes beside a whole prompt and a later chunk of one.
MIXED = IterationPoint(MODEL, CONTEXTS, ((300, 0), (60, 2000)))


def engine(path, *, cuda_graphs=True):
    options = LiveOptions(device="cuda", attention=path, cuda_graphs=cuda_graphs)
    built = build_engine(MODEL, CONFIG, 2, options, Sequences(MODEL.vocab, 0))
    generator = torch.Generator(built.device).manual_seed(1)
    for part in (built.kv.keys, built.kv.values):
        part.normal_(generator=generator)
    return built


def off(one, other):
    """The largest difference of logits, in standard deviations of them."""
    return float((one.float() - other.float()).abs().max() / other.float().std())


@pytest.fixture(scope="module")
def torch_logits():
    return engine("torch").logits(iteration_inputs(IterationPoint(MODEL, CONTEXTS), 0)).clone()


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_captured_or_not_a_step_has_the_logits_of_pytorchs_attention(path, cuda_graphs, torch_logits):
    logits = engine(path, cuda_graphs=cuda_graphs).logits(iteration_inputs(IterationPoint(MODEL, CONTEXTS), 0))
    assert off(logits, torch_logits) < 0.1


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_so_does_a_step_with_prompts_in_pieces_or_not(path, cuda_graphs):
    expected = engine("torch").logits(iteration_inputs(MIXED, 0)).clone()
    built = engine(path, cuda_graphs=cuda_graphs)
    # Another step first, larger and smaller: nothing of it may be left in the padding.
    for chunk in (900, 7):
        built.logits(iteration_inputs(IterationPoint(MODEL, (40, 50), ((chunk, 0),)), 1))
    generator = torch.Generator(built.device).manual_seed(1)
    for part in (built.kv.keys, built.kv.values):
        part.normal_(generator=generator)
    assert off(built.logits(iteration_inputs(MIXED, 0)), expected) < 0.1


def test_a_captured_step_is_planned_anew_for_every_batch(torch_logits):
    built = engine("tensor-cores")
    for contexts in ((5000, 3), (40,) * 6, (20_000, 1, 1, 1, 1)):
        built.logits(iteration_inputs(IterationPoint(MODEL, contexts), 0))
    generator = torch.Generator(built.device).manual_seed(1)
    for part in (built.kv.keys, built.kv.values):
        part.normal_(generator=generator)
    assert off(built.logits(iteration_inputs(IterationPoint(MODEL, CONTEXTS), 0)), torch_logits) < 0.1


@pytest.mark.parametrize("context", [100, 5000, 30_000])
def test_a_moved_requests_next_logits_are_those_of_one_never_moved(context):
    built = engine("tensor-cores")
    point, pages = IterationPoint(MODEL, (context,)), -(-context // 16)
    here, there = (np.arange(first, first + pages, dtype=np.int32) for first in (0, CONFIG.kv_blocks))
    copy_kv(built.kv, here, built.kv, there, 0, context - 1)
    assert equal_kv(built.kv, here, built.kv, there, 0, context - 1)
    still = built.logits(iteration_inputs(point, 0, 0)).clone()
    moved = built.logits(iteration_inputs(point, 0, CONFIG.kv_blocks))
    assert torch.equal(still, moved)


def test_a_prompt_in_chunks_ends_as_a_whole_one_does():
    built = engine("tensor-cores")
    whole = built.logits(iteration_inputs(IterationPoint(MODEL, (), ((1500, 0),)), 0)).clone()
    inputs = iteration_inputs(IterationPoint(MODEL, (), ((1500, 0),)), 0)
    ids = inputs.token_ids
    for start, end in ((0, 700), (700, 1500)):
        part = iteration_inputs(IterationPoint(MODEL, (), ((end - start, start),)), 0)
        last = built.logits(dataclasses.replace(part, token_ids=ids[start:end]))
    assert off(last, whole) < 0.1
