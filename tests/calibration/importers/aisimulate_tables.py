"""Tables as AISimulate writes them, by a simple law: a launch, and bytes or arithmetic at fractions of the peaks."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
from pandas import DataFrame

from l4sim.specs.gpu import GPUS

A100 = GPUS["a100-80gb-sxm"]
LAUNCH_MS = 3e-3


def gemm(**changed: object) -> DataFrame:
    """Products in bf16 on an A100."""
    rows = DataFrame(
        list(product((1, 16, 128, 1024, 8192), (256, 1024, 4096, 16384), (256, 1024, 4096, 16384))),
        columns=["m", "n", "k"],
    )
    moved = 2.0 * (rows.n * rows.k + rows.m * rows.k + rows.m * rows.n)
    flops = 2.0 * rows.m * rows.n * rows.k
    ms = LAUNCH_MS + 1e3 * np.maximum(moved / (0.8 * A100.memory_bytes_per_s), flops / (0.7 * A100.bf16_flops))
    return rows.assign(gemm_dtype="bfloat16", device="NVIDIA A100-SXM4-80GB", latency=ms).assign(**changed)


def experts(groups: tuple[int, ...] = (1, 4)) -> DataFrame:
    """Mixtral's experts in bf16, on one rank or several."""
    loads = ("balanced", "power_law_1.2")
    rows = DataFrame(
        list(product((1, 2, 4, 16, 256, 4096), groups, loads)), columns=["num_tokens", "moe_ep_size", "distribution"]
    )
    hit = np.minimum(8 / rows.moe_ep_size, 2 * rows.num_tokens)
    one = 3 * 4096 * 14336
    flops = 2.0 * one * 2 * rows.num_tokens / rows.moe_ep_size
    ms = LAUNCH_MS + 1e3 * np.maximum(2 * one * hit / (0.8 * A100.memory_bytes_per_s), flops / (0.6 * A100.bf16_flops))
    uneven = np.where((rows.distribution != "balanced") & (rows.moe_ep_size > 1), 1.5, 1.0)
    return rows.assign(
        moe_dtype="bfloat16",
        hidden_size=4096,
        inter_size=14336,
        topk=2,
        num_experts=8,
        moe_tp_size=1,
        device="NVIDIA A100-SXM4-80GB",
        latency=ms * uneven,
    )


def decodes(**changed: object) -> DataFrame:
    """Full attention of Llama-3.1-8B's heads: keys and values at four fifths of the bandwidth."""
    rows = DataFrame(list(product((1, 8, 64), (127, 1023, 8191))), columns=["batch_size", "step"])
    size = 2 * 2 * 8 * 128 * rows.batch_size * (rows.step + 1)
    return _attention(rows, LAUNCH_MS + 1e3 * size / (0.8 * A100.memory_bytes_per_s)).assign(**changed)


def prompts() -> DataFrame:
    """The same of prompts: their triangles at half of the peak."""
    rows = DataFrame(list(product((1, 8), (128, 1024, 8192))), columns=["batch_size", "isl"])
    flops = 4 * 32 * 128 * rows.batch_size * rows.isl * (rows.isl + 1) / 2
    return _attention(rows, LAUNCH_MS + 1e3 * flops / (0.5 * A100.bf16_flops)).assign(step=0)


def _attention(rows: DataFrame, ms: object) -> DataFrame:
    return rows.assign(
        num_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        attn_dtype="bfloat16",
        kv_cache_dtype="bfloat16",
        kernel_source="vllm_flash_attn",
        latency=ms,
    )


def write(folder: Path, **tables: DataFrame) -> Path:
    """A folder of tables, made if need be: those that are given, and the others by the law."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        "gemm_perf": gemm,
        "moe_perf": experts,
        "generation_attention_perf": decodes,
        "context_attention_perf": prompts,
    }
    for name, make in made.items():
        table = tables.get(name)
        (make() if table is None else table).to_parquet(folder / f"{name}.parquet")
    return folder
