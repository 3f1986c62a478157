"""Reading a vLLM run as LLMServingSim (casys-kaist) records it: ``meta.json`` and ``requests.jsonl``.

The kernels' measurements beside them, ``profile/``, are read by `l4sim.recordings.instance`.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from l4sim.calibration.points.tables import find_file, has_file
from l4sim.errors import InputError
from l4sim.json_files import Count, NonNegative, Positive, Text, decode_json, read_json
from l4sim.recordings.recording import EngineOptions, RecordedRequests, Recording
from l4sim.specs.engine_defaults import nearest_rules
from l4sim.specs.options import DEFAULTS


def recognises(folder: Path) -> bool:
    """Whether a folder holds a run in this form."""
    return has_file(folder, "requests.jsonl")


def read_recording(folder: Path) -> Recording:
    """Read a folder that LLMServingSim's benchmark of vLLM wrote.

    Raises:
        InputError: what `read_engine_options` and `read_requests` refuse.
    """
    return Recording(folder, read_engine_options(folder), read_requests(folder))


@dataclass(frozen=True, slots=True)
class _EngineFields:
    """Options of an engine, which stand in several places of ``meta.json``; None where one is not given there."""

    model: Text | None = None
    vllm_version: Text | None = None
    max_num_seqs: Count | None = None
    max_num_batched_tokens: Count | None = None
    max_model_len: Count | None = None
    tensor_parallel_size: Count | None = None
    num_gpu_blocks: Count | None = None
    block_size: Count | None = None
    gpu_memory_utilization: Positive | None = None
    enable_prefix_caching: bool | None = None
    scheduler_reserve_full_isl: bool | None = None
    async_scheduling: bool | None = None
    policy: Literal["fcfs", "priority"] | None = None
    scheduling_policy: Literal["fcfs", "priority"] | None = None
    long_prefill_token_threshold: Annotated[int, Meta(ge=0)] | None = None
    kv_transfer_config: Any = None
    kv_offloading_size: Any = None
    kv_events_config: Any = None


BESIDE = ("kv_transfer_config", "kv_offloading_size", "kv_events_config")
"""What an engine does with its KV besides: copies between memories, messages about blocks."""

_Halves = Literal["auto", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class _EngineArguments(_EngineFields):
    """What the engine was given; the types of the further ones are those of an engine that is simulated."""

    data_parallel_size: Literal[1] | None = None
    pipeline_parallel_size: Literal[1] | None = None
    kv_cache_dtype: _Halves | None = None
    dtype: _Halves | None = None
    quantization: None = None
    speculative_config: None = None
    enable_chunked_prefill: bool | None = None

    def __post_init__(self) -> None:
        if self.enable_chunked_prefill is False:
            raise InputError("enable_chunked_prefill is False, accepted is True")


@dataclass(frozen=True, slots=True)
class _ResolvedConfig(_EngineFields):
    """What vLLM made of that."""

    model_config: _EngineFields | None = None
    cache_config: _EngineFields | None = None
    scheduler_config: _EngineFields | None = None


@dataclass(frozen=True, slots=True)
class _Hardware:
    device_name: Text | None = None


@dataclass(frozen=True, slots=True)
class _Meta(_EngineFields):
    vllm_version: Text | None = None
    engine_kwargs: _EngineArguments | None = None
    kv_cache: _EngineFields | None = None
    resolved_config: _ResolvedConfig | None = None
    hardware: _Hardware | None = None


def read_engine_options(folder: Path) -> EngineOptions:
    """The engine's options in ``meta.json``; where one is missing, the default of the engine's version of vLLM.

    Raises:
        InputError: no such file, an invalid value, or an engine that one simulated instance is not (data parallel,
            quantised KV cache, whole prompts).
    """
    path = folder / "meta.json"
    meta = read_json(path, _Meta, others=True)
    given, cache = meta.engine_kwargs, meta.kv_cache
    resolved = meta.resolved_config or _ResolvedConfig()
    scheduler, resolved_cache = resolved.scheduler_config, resolved.cache_config
    model = _first("model", meta, given)
    if model is None:
        raise InputError(f"{path}: model is missing")
    blocks = _first("num_gpu_blocks", cache, resolved_cache)
    rules, rules_note = nearest_rules(meta.vllm_version)
    return EngineOptions(
        model=model,
        device=(meta.hardware or _Hardware()).device_name,
        engine_rules=rules,
        rules_note=rules_note,
        max_num_seqs=_first("max_num_seqs", given, scheduler, meta),
        max_num_batched_tokens=_first("max_num_batched_tokens", given, scheduler, meta),
        max_model_len=_first("max_model_len", given, resolved.model_config),
        tensor_parallel=_first("tensor_parallel_size", given, meta, default=1),
        # vLLM counts its null block, which no request ever gets.
        kv_blocks=None if blocks is None else blocks - 1,
        block_tokens=_first("block_size", cache, resolved_cache, given, default=DEFAULTS.block_size),
        gpu_memory_utilization=_first("gpu_memory_utilization", cache, resolved_cache, given),
        # vLLM has all of these unless its options say otherwise.
        prefix_caching=_first("enable_prefix_caching", cache, resolved_cache, given, default=True),
        reserve_full_prompt=_first("scheduler_reserve_full_isl", scheduler, default=True),
        async_scheduling=_first("async_scheduling", scheduler, given, default=True),
        scheduling_policy=_first("policy", scheduler) or _first("scheduling_policy", given, default="fcfs"),
        long_prefill_token_threshold=_first("long_prefill_token_threshold", scheduler, given, default=0),
        version=meta.vllm_version,
        beside=tuple(name for name in BESIDE if _first(name, given, resolved, resolved_cache, meta)),
    )


def _first(name: str, *places: _EngineFields | None, default: Any = None) -> Any:
    """A field from the first of several places that has it, else ``default``."""
    given = (getattr(place, name) for place in places if place is not None)
    return next((value for value in given if value is not None), default)


def read_requests(folder: Path) -> RecordedRequests:
    """The requests in ``requests.jsonl`` or ``requests.jsonl.gz``, sorted by the moment they were queued.

    Raises:
        InputError: no such file, no requests, or a field that is missing or impossible (with its line).
    """
    path = find_file(folder, "requests.jsonl")
    rows = sorted(_lines(path), key=lambda row: row.queued_ts)
    if not rows:
        raise InputError(f"{path}: no requests")
    queued_s, first_s, last_s, prompt, output = (
        np.array([getattr(row, name) for row in rows], dtype=np.float64)
        for name in ("queued_ts", "first_token_ts", "last_token_ts", "input_toks", "output_toks")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot_s = np.where(output > 1, (last_s - first_s) / (output - 1), np.nan)
    return RecordedRequests(
        tuple(str(row.request_id) for row in rows),
        queued_s - queued_s[0],
        prompt.astype(np.int64),
        output.astype(np.int64),
        first_s - queued_s,
        tpot_s,
        last_s - queued_s,
    )


@dataclass(frozen=True, slots=True)
class _Request:
    """A line of ``requests.jsonl``; moments in seconds on one clock."""

    request_id: Any
    queued_ts: NonNegative
    first_token_ts: NonNegative
    last_token_ts: NonNegative
    input_toks: Count
    output_toks: Count

    def __post_init__(self) -> None:
        if not self.queued_ts <= self.first_token_ts <= self.last_token_ts:
            raise InputError("queued_ts, first_token_ts and last_token_ts are not in this order")


def _lines(path: Path) -> Iterator[_Request]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield decode_json(line, _Request, f"{path}, line {number}", others=True)
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
