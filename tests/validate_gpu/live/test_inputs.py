import numpy as np

from l4sim.engine.request import Request
from l4sim.engine.vllm.engine import VLLMEngine
from tests.validate_gpu.live.small import engine_config
from validate_gpu.live.inputs import build_inputs, pad_decodes
from validate_gpu.live.pages import PagedPool
from validate_gpu.live.sequences import Sequences


def mixed_step():
    """Request 0 (5 prompt tokens) decodes its second token; of request 1's 9 prompt tokens 7 fit the budget of 8."""
    config = engine_config(max_num_batched_tokens=8, async_scheduling=False)
    pool = PagedPool(config.kv_blocks, config.block_tokens)
    sequences = Sequences(50, seed=0)
    instance = VLLMEngine(config, pool=pool)
    instance.add(Request(0, 0.0, 5, 10), 0.0)
    step = instance.plan(0.0)
    build_inputs(step, instance.decoding.requests, pool, sequences)
    sequences.sampled[0].append(42)
    instance.commit(step, 1.0)
    instance.add(Request(1, 1.0, 9, 10), 1.0)
    step = instance.plan(1.0)
    return build_inputs(step, instance.decoding.requests, pool, sequences), pool, sequences


def test_a_decode_and_a_chunk_of_a_prompt():
    inputs, pool, sequences = mixed_step()
    prompt = sequences.tokens(1, 9, 0, 7)
    np.testing.assert_array_equal(inputs.token_ids, [42, *prompt])
    np.testing.assert_array_equal(inputs.positions, [5, 0, 1, 2, 3, 4, 5, 6])
    # Pages of 4 tokens are handed out from 0: request 0 has pages 0 and 1, request 1 pages 2 and 3.
    np.testing.assert_array_equal(inputs.slots, [5, 8, 9, 10, 11, 12, 13, 14])
    np.testing.assert_array_equal(inputs.table.pages, [0, 1, 2, 3])
    np.testing.assert_array_equal(inputs.table.page_indptr, [0, 2, 4])
    np.testing.assert_array_equal(inputs.table.query_indptr, [0, 1, 8])
    np.testing.assert_array_equal(inputs.table.context_tokens, [6, 7])
    np.testing.assert_array_equal(inputs.table.last_page_tokens, [2, 3])
    assert inputs.table.decodes == 1
    assert pool.pages_held == pool.total - pool.free


def test_only_decodes_and_prompts_that_end_sample():
    inputs, _, _ = mixed_step()
    np.testing.assert_array_equal(inputs.sample_rows, [0])
    assert inputs.samplers == ((0, 1),)


def test_padding_adds_one_token_contexts_on_the_scratch_page():
    config = engine_config(async_scheduling=False)
    pool, sequences = PagedPool(config.kv_blocks, config.block_tokens), Sequences(50, seed=0)
    instance = VLLMEngine(config, pool=pool)
    instance.add(Request(0, 0.0, 4, 10), 0.0)
    step = instance.plan(0.0)
    build_inputs(step, [], pool, sequences)
    sequences.sampled[0].append(7)
    instance.commit(step, 1.0)
    step = instance.plan(1.0)
    padded = pad_decodes(build_inputs(step, instance.decoding.requests, pool, sequences), 3, scratch_page=40)
    np.testing.assert_array_equal(padded.token_ids, [7, 0, 0])
    np.testing.assert_array_equal(padded.slots, [4, 160, 160])
    np.testing.assert_array_equal(padded.table.pages, [0, 1, 40, 40])
    np.testing.assert_array_equal(padded.table.page_indptr, [0, 2, 3, 4])
    np.testing.assert_array_equal(padded.table.context_tokens, [5, 1, 1])
    np.testing.assert_array_equal(padded.table.last_page_tokens, [1, 1, 1])
    assert padded.samplers == ((0, 1),)
    assert padded.table.pages.dtype == padded.table.page_indptr.dtype == np.int32
