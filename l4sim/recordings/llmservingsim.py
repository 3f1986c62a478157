"""Reading a vLLM run as LLMServingSim (casys-kaist) records it: ``meta.json`` and ``requests.jsonl``.

The kernels' measurements beside them, ``profile/``, are read by `l4sim.recordings.instance`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from l4sim.calibration.points.tables import find_file
from l4sim.errors import InputError
from l4sim.recordings.recording import EngineOptions, RecordedRequests, Recording
from l4sim.specs.fields import Fields, read_fields

_BLOCK_TOKENS = 16
_UTILIZATION = 0.9
# vLLM's SchedulerConfig defaults, which an engine has that was given neither.
_MAX_NUM_SEQS = 128
_MAX_NUM_BATCHED_TOKENS = 2048


def read_recording(folder: Path) -> Recording:
    """Read a folder that LLMServingSim's benchmark of vLLM wrote.

    Raises:
        InputError: no such folder, or what `read_engine_options` and `read_requests` refuse.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    return Recording(folder, read_engine_options(folder), read_requests(folder))


def read_engine_options(folder: Path) -> EngineOptions:
    """The engine's options in ``meta.json``; where one is missing, vLLM 0.19's default.

    Raises:
        InputError: no such file, an invalid value, or an engine that one simulated instance is not (data parallel,
            quantised KV cache, whole prompts).
    """
    root = read_fields(folder / "meta.json")
    given = _object(root, "engine_kwargs")
    cache = _object(root, "kv_cache")
    resolved = _object(root, "resolved_config")
    scheduler, resolved_cache = _object(resolved, "scheduler_config"), _object(resolved, "cache_config")
    _accept(given, "data_parallel_size", (None, 1))
    _accept(given, "pipeline_parallel_size", (None, 1))
    _accept(given, "kv_cache_dtype", (None, "auto", "bfloat16", "float16"))
    _accept(given, "dtype", (None, "auto", "bfloat16", "float16"))
    _accept(given, "quantization", (None,))
    _accept(given, "speculative_config", (None,))
    _accept(given, "enable_chunked_prefill", (None, True))
    blocks = _count("num_gpu_blocks", cache, resolved_cache)
    utilization = _first("gpu_memory_utilization", cache, resolved_cache, given)
    return EngineOptions(
        model=(_first("model", root, given) or root).text("model"),
        device=_object(root, "hardware").values.get("device_name"),
        max_num_seqs=_count("max_num_seqs", given, scheduler) or _MAX_NUM_SEQS,
        max_num_batched_tokens=_count("max_num_batched_tokens", given, scheduler) or _MAX_NUM_BATCHED_TOKENS,
        max_model_len=_count("max_model_len", given, _object(resolved, "model_config")),
        tensor_parallel=_count("tensor_parallel_size", given, root) or 1,
        # vLLM counts its null block, which no request ever gets.
        kv_blocks=None if blocks is None else blocks - 1,
        block_tokens=_count("block_size", cache, resolved_cache, given) or _BLOCK_TOKENS,
        gpu_memory_utilization=_UTILIZATION if utilization is None else utilization.positive("gpu_memory_utilization"),
        prefix_caching=_flag("enable_prefix_caching", cache, resolved_cache, given),
        reserve_full_prompt=_flag("scheduler_reserve_full_isl", scheduler),
        async_scheduling=_flag("async_scheduling", scheduler, given),
    )


def read_requests(folder: Path) -> RecordedRequests:
    """The requests in ``requests.jsonl`` or ``requests.jsonl.gz``, sorted by the moment they were queued.

    Raises:
        InputError: no such file, no requests, or a field that is missing or impossible (with its line).
    """
    path = find_file(folder, "requests.jsonl")
    rows = sorted(map(_request, _lines(path)), key=lambda row: row[1])
    if not rows:
        raise InputError(f"{path}: no requests")
    names, columns = [row[0] for row in rows], np.array([row[1:] for row in rows])
    queued_s, first_s, last_s, prompt, output = columns.T
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot_s = np.where(output > 1, (last_s - first_s) / (output - 1), np.nan)
    return RecordedRequests(
        tuple(names),
        queued_s - queued_s[0],
        prompt.astype(np.int64),
        output.astype(np.int64),
        first_s - queued_s,
        tpot_s,
        last_s - queued_s,
    )


def _request(row: Fields) -> tuple[str, float, float, float, int, int]:
    queued_s, first_s, last_s = (row.number(name) for name in ("queued_ts", "first_token_ts", "last_token_ts"))
    if not queued_s <= first_s <= last_s:
        raise InputError(f"{row.where}: queued_ts, first_token_ts and last_token_ts are not in this order")
    return (
        str(row.get("request_id")),
        queued_s,
        first_s,
        last_s,
        row.count("input_toks"),
        row.count("output_toks"),
    )


def _lines(path: Path) -> Iterator[Fields]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _fields(line, f"{path}, line {number}")
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _fields(line: bytes, where: str) -> Fields:
    try:
        values = json.loads(line)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise InputError(f"{where}: not a JSON object")
    return Fields(values, where)


def _object(parent: Fields, name: str) -> Fields:
    """A nested object; an empty one where it is missing or null."""
    if parent.values.get(name) is None:
        return Fields({}, f"{parent.where}: {name}")
    return parent.object(name)


def _first(name: str, *places: Fields) -> Fields | None:
    """The first of several objects that has a field; None if none has."""
    return next((place for place in places if place.values.get(name) is not None), None)


def _count(name: str, *places: Fields) -> int | None:
    found = _first(name, *places)
    return None if found is None else found.count(name)


def _flag(name: str, *places: Fields) -> bool:
    """True where nothing says otherwise, as all of these are by default in vLLM."""
    found = _first(name, *places)
    return found is None or found.flag(name)


def _accept(given: Fields, name: str, accepted: tuple[Any, ...]) -> None:
    value = given.values.get(name)
    if value not in accepted:
        choices = ", ".join(str(choice) for choice in accepted if choice is not None) or "none"
        raise InputError(f"{given.where}: {name} is {value!r}, accepted is {choices}")
