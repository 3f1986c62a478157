"""A model small enough for a CPU, an engine for it, and the batches that tests run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from l4sim.engine.config import EngineConfig
from l4sim.specs.model import Model, dense_model, uniform_layers
from l4sim.workload.trace import Trace
from validate_gpu.live.engine import DeviceEngine, Kernels, torch_kernels
from validate_gpu.live.inputs import PageTable, indptr
from validate_gpu.live.model import Transformer
from validate_gpu.live.sequences import Sequences

CPU = torch.device("cpu")
MODEL = dense_model(
    "small",
    layers=2,
    hidden=32,
    intermediate=48,
    heads=4,
    kv_heads=2,
    head_dim=64,
    vocab=97,
    max_model_len=256,
)
ATTENTION, MLP = uniform_layers(MODEL).attention, uniform_layers(MODEL).mlp


def with_heads(model: Model, **sizes: int) -> Model:
    """The model with other ``heads``, ``kv_heads`` or ``head_dim``."""
    layers = uniform_layers(model)
    return replace(model, groups=(replace(layers, attention=replace(layers.attention, **sizes)),))


def engine_config(**changes: Any) -> EngineConfig:
    options: dict[str, Any] = {
        "kv_blocks": 40,
        "max_model_len": 256,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 24,
        "block_tokens": 4,
        "prefix_caching": False,
    }
    return EngineConfig(**{**options, **changes})


def transformer(seed: int = 0) -> Transformer:
    return Transformer(MODEL, max_model_len=256, seed=seed, device=CPU, dtype=torch.float32)


def device_engine(config: EngineConfig, instances: int, kernels: Kernels | None = None) -> DeviceEngine:
    return DeviceEngine(transformer(), config, instances, kernels or torch_kernels(), Sequences(MODEL.vocab, seed=0))


def make_trace(arrival_s: Any, prompt_tokens: Any, output_tokens: Any) -> Trace:
    count = len(prompt_tokens)
    return Trace(
        "made",
        tuple(str(row) for row in range(count)),
        np.asarray(arrival_s, dtype=np.float64),
        np.asarray(prompt_tokens, dtype=np.int64),
        np.asarray(output_tokens, dtype=np.int64),
        np.full(count, -1),
        np.full(count, -1),
        np.full(count, np.nan),
    )


def page_table(pages: list[list[int]], contexts: list[int], queries: list[int], page_tokens: int) -> PageTable:
    """Requests with one query are taken as decodes and must come first."""
    return PageTable(
        decodes=queries.count(1),
        query_indptr=indptr(queries),
        page_indptr=indptr([len(own) for own in pages]),
        pages=np.array([page for own in pages for page in own], dtype=np.int32),
        context_tokens=np.array(contexts, dtype=np.int32),
        page_tokens=page_tokens,
    )
