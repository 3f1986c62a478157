import numpy as np
import pytest
import torch

from l4sim.runtime.executor import ExecutionError
from tests.validate_gpu.live.small import MODEL, engine_config
from validate_gpu.live import build
from validate_gpu.live.build import LiveOptions, build_engine, describe_device, warm_up_steps
from validate_gpu.live.sequences import Sequences


def test_an_engine_is_warm_before_it_is_used():
    engine = build_engine(MODEL, engine_config(), 2, LiveOptions(device="cpu"), Sequences(MODEL.vocab, 0))
    assert engine.device == torch.device("cpu")
    assert [pool.total for pool in engine.pools] == [40, 40]
    # The warm-up has run through the memory, and through no request's books.
    assert engine.kv.keys.any()
    assert engine.sequences.sampled == {}
    assert [pool.pages_held for pool in engine.pools] == [0, 0]


def test_the_warm_up_covers_the_largest_chunk_and_the_largest_batch():
    prompt, decodes = warm_up_steps(engine_config(max_num_batched_tokens=90, max_num_seqs=8))
    assert len(prompt.token_ids) == 90
    assert prompt.table.decodes == 0
    np.testing.assert_array_equal(prompt.slots, np.arange(90))
    assert decodes.table.decodes == len(decodes.token_ids) == 8
    np.testing.assert_array_equal(decodes.table.pages, np.arange(8))
    np.testing.assert_array_equal(decodes.slots, np.arange(8) * 4)


def test_the_warm_up_stays_within_one_instances_memory():
    prompt, decodes = warm_up_steps(engine_config(kv_blocks=5, max_num_batched_tokens=90))
    assert len(prompt.token_ids) == 20
    assert decodes.table.decodes == 5


def test_a_device_that_fails_is_told_in_one_line(monkeypatch):
    def fail(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nand more lines")

    monkeypatch.setattr(build, "DeviceEngine", fail)
    with pytest.raises(ExecutionError) as failed:
        build_engine(MODEL, engine_config(), 1, LiveOptions(device="cpu"), Sequences(MODEL.vocab, 0))
    assert str(failed.value) == "cpu is not ready for small: CUDA out of memory. Tried to allocate 9 GiB"


def test_a_cpu_is_described_by_its_threads():
    described = describe_device(torch.device("cpu"))
    assert described["threads"] == torch.get_num_threads()
    assert described["torch"] == torch.__version__
