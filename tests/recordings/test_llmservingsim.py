"""Recorded runs: what is read, what has a default, what is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from l4sim.errors import InputError
from l4sim.recordings.llmservingsim import read_engine_options, read_requests

from .conftest import META, Record, request


def with_kwargs(**changes: Any) -> dict[str, Any]:
    return META | {"engine_kwargs": META["engine_kwargs"] | changes}


@pytest.mark.parametrize("zipped", [False, True])
def test_latencies_count_from_the_moment_a_request_was_queued(record: Record, zipped: bool) -> None:
    # Queued last, listed first: 0.25 s to the first token, then 100 tokens in 1 s.
    late = request(7, first_token_ts=1007.25, last_token_ts=1008.25)
    found = read_requests(record([late, request(5)], zipped=zipped))
    assert found.request_id == ("bench-5", "bench-7")
    assert found.arrival_s.tolist() == [0.0, 2.0]
    assert found.ttft_s == pytest.approx([0.05, 0.25])
    assert found.tpot_s == pytest.approx([0.01, 0.01])
    assert found.e2e_s == pytest.approx([1.05, 1.25])


def test_an_answer_of_one_token_has_no_tpot(record: Record) -> None:
    found = read_requests(record([request(0, output_toks=1, last_token_ts=1000.05)]))
    assert np.isnan(found.tpot_s).tolist() == [True]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (request(1, queued_ts=...), r"requests\.jsonl, line 2: queued_ts is missing"),
        (request(1, output_toks=0), r"line 2: output_toks is 0, accepted is a whole number >= 1"),
        (request(1, first_token_ts=None), r"line 2: first_token_ts is None, accepted is a number >= 0"),
        (
            request(1, first_token_ts=999.0),
            r"line 2: queued_ts, first_token_ts and last_token_ts are not in this order",
        ),
    ],
)
def test_a_broken_request_is_named(record: Record, row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_requests(record([request(0), row]))


def test_a_run_without_requests_is_refused(record: Record) -> None:
    with pytest.raises(InputError, match="no requests"):
        read_requests(record([]))


def test_a_damaged_archive_is_one_line(record: Record) -> None:
    folder = record(zipped=True)
    path = folder / "requests.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        read_requests(folder)


def test_what_is_not_recorded_is_vllms_default(record: Record) -> None:
    engine = read_engine_options(record(meta={"model": "meta-llama/Llama-3.1-8B"}))
    # Those that depend on the version and the GPU are left to them.
    assert (engine.max_num_seqs, engine.max_num_batched_tokens, engine.gpu_memory_utilization) == (None, None, None)
    assert (engine.scheduling_policy, engine.long_prefill_token_threshold, engine.block_tokens) == ("fcfs", 0, 16)
    assert (engine.tensor_parallel, engine.kv_blocks, engine.max_model_len) == (1, None, None)
    assert engine.prefix_caching
    assert engine.reserve_full_prompt
    assert engine.async_scheduling


def test_what_the_engine_really_had_is_used(record: Record) -> None:
    meta = with_kwargs(tensor_parallel_size=2, max_model_len=32768) | {
        "kv_cache": {"num_gpu_blocks": 2588, "block_size": 32, "enable_prefix_caching": False},
        "hardware": {"device_name": "NVIDIA GeForce RTX 4090"},
        "resolved_config": {"scheduler_config": {"async_scheduling": False, "scheduler_reserve_full_isl": False}},
    }
    engine = read_engine_options(record(meta=meta))
    assert engine.kv_blocks == 2587, "vLLM counts its null block"
    assert (engine.block_tokens, engine.tensor_parallel, engine.max_model_len) == (32, 2, 32768)
    assert engine.device == "NVIDIA GeForce RTX 4090"
    assert (engine.prefix_caching, engine.async_scheduling, engine.reserve_full_prompt) == (False, False, False)


@pytest.mark.parametrize(
    ("version", "rules", "note"),
    [
        ("0.19.0", "vllm-0.19", None),
        ("0.32.0+cpu", "vllm-0.32", None),
        ("0.15.1", "vllm-0.19", "vLLM 0.15.1 has no rules of its own here: those of vllm-0.19 are the nearest"),
        ("v0.29.0", "vllm-0.32", "vLLM v0.29.0 has no rules of its own here: those of vllm-0.32 are the nearest"),
        ("dev", "vllm-0.32", "vLLM's version is 'dev': the rules and defaults are vllm-0.32's"),
        (None, "vllm-0.32", "vLLM's version is not recorded: the rules and defaults are vllm-0.32's"),
    ],
)
def test_rules_are_those_of_the_recorded_version_or_the_nearest(
    record: Record, version: str | None, rules: str, note: str | None
) -> None:
    engine = read_engine_options(record(meta=META | {"vllm_version": version}))
    assert (engine.engine_rules, engine.rules_note) == (rules, note)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_parallel_size": 2}, r"meta\.json: engine_kwargs: data_parallel_size is 2, accepted is 1"),
        ({"kv_cache_dtype": "fp8"}, r"kv_cache_dtype is 'fp8', accepted is auto, bfloat16, float16"),
        ({"quantization": "awq"}, r"quantization is 'awq', accepted is null"),
        ({"enable_chunked_prefill": False}, r"enable_chunked_prefill is False, accepted is True"),
        ({"max_num_seqs": 0}, r"max_num_seqs is 0, accepted is a whole number >= 1"),
    ],
)
def test_an_engine_that_is_not_modelled_is_refused_by_option(
    record: Record, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_engine_options(record(meta=with_kwargs(**changes)))
