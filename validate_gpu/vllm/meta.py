"""What a recording says of the engine: everything that vLLM resolved, and the device."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import vllm
from vllm.platforms import current_platform

_CONFIGS = ("model_config", "cache_config", "scheduler_config", "parallel_config", "compilation_config")


def write_meta(folder: Path, config: Any, num_gpu_blocks: int) -> None:
    """Write ``meta.json`` and the model's ``config.json``; ``config`` is a ``VllmConfig``.

    ``num_gpu_blocks`` counts vLLM's null block, as vLLM does.
    """
    resolved = {name: plain(getattr(config, name)) for name in _CONFIGS}
    model, cache, scheduler, parallel = (
        config.model_config,
        config.cache_config,
        config.scheduler_config,
        config.parallel_config,
    )
    meta = {
        "schema_version": 1,
        "recorder": "l4sim",
        "model": str(model.model),
        "vllm_version": vllm.__version__,
        "engine_kwargs": {
            "max_num_seqs": scheduler.max_num_seqs,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
            "max_model_len": model.max_model_len,
            "tensor_parallel_size": parallel.tensor_parallel_size,
            "pipeline_parallel_size": parallel.pipeline_parallel_size,
            "data_parallel_size": parallel.data_parallel_size,
            "dtype": plain(model.dtype),
            "kv_cache_dtype": cache.cache_dtype,
            "quantization": model.quantization,
            "speculative_config": plain(config.speculative_config),
            "enable_chunked_prefill": scheduler.enable_chunked_prefill,
            "enforce_eager": model.enforce_eager,
        },
        "kv_cache": {"num_gpu_blocks": num_gpu_blocks, "block_size": cache.block_size},
        "resolved_config": resolved,
        "hardware": _hardware(),
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(plain(model.hf_config.to_dict()), indent=1) + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """A configuration as JSON has it; what is no data (functions, a model's code) is left out."""
    if dataclasses.is_dataclass(value):
        return plain({field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)})
    match value:
        case None | bool() | int() | float() | str():
            return value.value if isinstance(value, Enum) else value
        case Enum():
            return value.name
        case torch.dtype():
            return str(value).removeprefix("torch.")
        case Path():
            return str(value)
        case Mapping():
            return {str(name): plain(inner) for name, inner in value.items() if _is_data(inner)}
        case list() | tuple() | set() | frozenset():
            return [plain(inner) for inner in value if _is_data(inner)]
    return str(value)


def _is_data(value: Any) -> bool:
    kinds = (type(None), bool, int, float, str, Enum, torch.dtype, Path, Mapping, list, tuple, set, frozenset)
    return isinstance(value, kinds) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _hardware() -> dict[str, Any]:
    return {
        "device_type": current_platform.device_type,
        "device_name": _processor() if current_platform.is_cpu() else current_platform.get_device_name(),
        "device_memory_bytes": current_platform.get_device_total_memory(),
        "host_cpu": _processor(),
        "host_cpus": os.cpu_count(),
        "platform": platform.platform(),
    }


def _processor() -> str:
    """The CPU's own name for itself, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
