"""Reading a run as its clients saw it: ``requests.csv`` with what every request took, ``meta.json`` with the engine.

Such folders come from load generators that write one row per request. Latencies include HTTP and streaming, so a replay
puts a front end before the engine (`l4sim.recordings.replay`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from l4sim.calibration.points.tables import find_file, has_file
from l4sim.errors import InputError
from l4sim.json_files import Count, Text, read_json
from l4sim.recordings.llmservingsim import BESIDE
from l4sim.recordings.recording import BoolArray, EngineOptions, IntArray, RecordedRequests, Recording
from l4sim.specs.engine_defaults import nearest_rules
from l4sim.specs.mlp import Experts
from l4sim.specs.model import Model, dense_model
from l4sim.specs.options import DEFAULTS
from l4sim.workload.files import read_records
from l4sim.workload.prefix_blocks import block_counts
from l4sim.workload.raw_records import MISSING, RawRecords, labels, numbers, tokens
from l4sim.workload.trace import PrefixBlocks

REQUESTS = "requests.csv"
_OK = "ok"
_SECONDS = "a number of seconds >= 0"


@dataclass(frozen=True, slots=True)
class _Shape:
    """A decoder's sizes; ``num_local_experts`` tells one whose MLPs are mixtures of experts."""

    num_layers: Count
    hidden_dim: Count
    num_heads: Count
    num_kv_heads: Count
    intermediate_dim: Count
    vocab_size: Count
    num_local_experts: int = 0
    num_experts_per_tok: Count | None = None


@dataclass(frozen=True, slots=True)
class _Blocks:
    num_gpu_blocks: Count | None = None
    block_size: Count | None = None


@dataclass(frozen=True, slots=True)
class _Meta:
    gpu: Text
    model: Text
    engine: Text | None = None
    """The engine in words; its version is the first number in them that looks like one."""
    model_config: _Shape | None = None
    tensor_parallel_size: Count = 1
    max_model_len: Count | None = None
    max_num_seqs: Count | None = None
    max_num_batched_tokens: Count | None = None
    kv_cache: _Blocks | None = None
    enable_prefix_caching: bool = True
    kv_transfer_config: Any = None
    kv_offloading_size: Any = None
    kv_events_config: Any = None


def recognises(folder: Path) -> bool:
    """Whether a folder holds such a run."""
    return has_file(folder, REQUESTS)


def read_recording(folder: Path) -> Recording:
    """Read such a folder.

    Raises:
        InputError: a file or field that is missing or invalid (with its line).
    """
    path = folder / "meta.json"
    meta = read_json(path, _Meta, others=True)
    engine = _engine(meta)
    return Recording(
        folder,
        engine,
        _requests(find_file(folder, REQUESTS), engine.block_tokens),
        measured_at="client",
        model=None if meta.model_config is None else _model(meta, meta.model_config, str(path)),
    )


def _engine(meta: _Meta) -> EngineOptions:
    """The engine's options; what is not recorded is vLLM's default."""
    cache = meta.kv_cache or _Blocks()
    found = re.search(r"\d+\.\d+(\.\d+)?", meta.engine or "")
    version = found and found.group()
    rules, rules_note = nearest_rules(version)
    return EngineOptions(
        model=meta.model,
        device=meta.gpu,
        engine_rules=rules,
        rules_note=rules_note,
        version=version,
        max_num_seqs=meta.max_num_seqs,
        max_num_batched_tokens=meta.max_num_batched_tokens,
        max_model_len=meta.max_model_len,
        tensor_parallel=meta.tensor_parallel_size,
        # vLLM counts its null block, which no request ever gets.
        kv_blocks=None if cache.num_gpu_blocks is None else cache.num_gpu_blocks - 1,
        block_tokens=cache.block_size or DEFAULTS.block_size,
        gpu_memory_utilization=DEFAULTS.gpu_memory_utilization,
        prefix_caching=meta.enable_prefix_caching,
        reserve_full_prompt=DEFAULTS.reserve_full_prompt,
        async_scheduling=DEFAULTS.async_scheduling,
        scheduling_policy=DEFAULTS.scheduling_policy,
        long_prefill_token_threshold=DEFAULTS.long_prefill_token_threshold,
        beside=tuple(name for name in BESIDE if getattr(meta, name)),
    )


def _model(meta: _Meta, shape: _Shape, where: str) -> Model:
    if shape.num_local_experts and shape.num_experts_per_tok is None:
        raise InputError(f"{where}: num_local_experts means mixture of experts, and num_experts_per_tok is missing")
    if shape.num_heads % shape.num_kv_heads or shape.hidden_dim % shape.num_heads:
        raise InputError(f"{where}: model_config: num_heads {shape.num_heads} do not fit num_kv_heads and hidden_dim")
    model = dense_model(
        meta.model.rsplit("/", 1)[-1].lower(),
        layers=shape.num_layers,
        hidden=shape.hidden_dim,
        intermediate=shape.intermediate_dim,
        heads=shape.num_heads,
        kv_heads=shape.num_kv_heads,
        head_dim=shape.hidden_dim // shape.num_heads,
        vocab=shape.vocab_size,
        # Nothing longer was served, and the model's own limit is not recorded.
        max_model_len=meta.max_model_len or 1 << 20,
    )
    if shape.num_experts_per_tok is None or not shape.num_local_experts:
        return model
    experts = Experts(shape.num_local_experts, shape.num_experts_per_tok, shape.intermediate_dim)
    return replace(model, groups=tuple(replace(group, mlp=experts) for group in model.groups))


def _requests(path: Path, block_tokens: int) -> RecordedRequests:
    """The rows in order of arrival; a request that its client gave up has no latencies (NaN).

    Such a row may have no lengths either (0): they are then taken to be the median of its group's, or of all requests'.
    """
    records = read_records(path)
    arrival_s = numbers(records, "arrival_s", _SECONDS, least=0)
    ok = np.array([value in (MISSING, "", _OK) for value in records.column("status")])
    prompt, output = (tokens(records, name, least=0) for name in ("prompt_tokens", "output_tokens"))
    ttft_s, e2e_s = (numbers(records, name, _SECONDS, least=0, optional=True) for name in ("ttft_s", "e2e_s"))
    _refuse(records, "prompt_tokens", ok & (prompt == 0), "1 token or more")
    _refuse(records, "output_tokens", ok & (output == 0), "1 token or more")
    _refuse(records, "ttft_s", ok & np.isnan(ttft_s), _SECONDS)
    _refuse(records, "e2e_s", ok & ~(e2e_s >= ttft_s), "ttft_s or more")
    if not ok.any():
        raise InputError(f"{path}: no request was served: accepted is at least one with status {_OK}")
    names, groups = labels(records, "index"), _numbered(labels(records, "prompt_group"))
    prompt, output = _filled(prompt, ok, groups), _filled(output, ok, groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot_s = np.where(output > 1, (e2e_s - ttft_s) / (output - 1), np.nan)
    order = np.argsort(arrival_s, kind="stable")
    return RecordedRequests(
        tuple(names[row] or str(row) for row in order.tolist()),
        arrival_s[order] - arrival_s[order[0]],
        prompt[order],
        output[order],
        np.where(ok, ttft_s, np.nan)[order],
        np.where(ok, tpot_s, np.nan)[order],
        np.where(ok, e2e_s, np.nan)[order],
        _same_prompts(groups[order], prompt[order], block_tokens) if groups.any() else None,
    )


def _refuse(records: RawRecords, field: str, wrong: BoolArray, accepted: str) -> None:
    if wrong.any():
        records.refuse(int(np.argmax(wrong)), field, accepted)


def _numbered(groups: list[str | None]) -> IntArray:
    """Groups by number from 1, in order of appearance; 0 for a request of none. Shape ``[requests]``."""
    known: dict[str, int] = {}
    return np.array([0 if group is None else known.setdefault(group, len(known) + 1) for group in groups])


def _filled(lengths: IntArray, ok: BoolArray, groups: IntArray) -> IntArray:
    filled = lengths.copy()
    for row in np.flatnonzero(lengths == 0):
        alike = ok & (groups == groups[row]) if groups[row] else ok
        filled[row] = int(np.median(lengths[alike if alike.any() else ok]))
    return filled


def _same_prompts(groups: IntArray, prompt_tokens: IntArray, block_tokens: int) -> PrefixBlocks:
    """Block ids by which requests of a group send the same prompt, as far as the shorter goes; 0 shares with nobody."""
    counts = block_counts(prompt_tokens, block_tokens)
    prompts = np.where(groups > 0, groups, groups.max() + 1 + np.arange(len(groups)))
    offsets = np.concatenate(([0], np.cumsum(counts)))
    positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    return PrefixBlocks(np.repeat(prompts, counts) * int(counts.max()) + positions, offsets, block_tokens)
