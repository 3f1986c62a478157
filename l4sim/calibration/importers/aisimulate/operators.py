"""AISimulate's operators: in which files they are, what their columns mean, and the least that they can take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame

from l4sim.cost.tables.products import GEMM
from l4sim.specs.dtypes import size_bytes
from l4sim.specs.gpu import GPU

FloatArray = NDArray[np.float64]

MILLISECONDS, MICROSECONDS = 1e-3, 1e-6


class Least(NamedTuple):
    """What operators do at the least, or what is surely less; each of shape ``[rows]``."""

    moved_bytes: FloatArray
    """From and to memory, once."""
    arithmetic_s: FloatArray
    """At the peak rate; or over the link between GPUs at its peak."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of ours, and the table that holds it."""

    name: str
    file: str
    """Of the table, without its ending."""
    kinds: Mapping[str, str]
    """Our texts by row, and their columns there."""
    sizes: Mapping[str, str]
    axes: Mapping[str, str]
    least: Callable[[DataFrame, GPU], Least]
    """The least that rows (with our names) can take."""
    latency: str = "latency"
    unit_s: float = MILLISECONDS
    only: Mapping[str, object] = field(default_factory=dict)
    """Rows to keep, by the columns there."""
    first: Mapping[str, int] = field(default_factory=dict)
    """What is added to a column there to have ours: a decode's new token beside the cached ones."""
    filled: Mapping[str, int] = field(default_factory=dict)
    """What a column is where the table has none."""
    kernel: str | None = None
    """The column that names a row's kernel: where several were timed, engines run the first of `PREFERRED`."""


PREFERRED = ("fa3", "fa4", "trtllm", "fa2", "flashinfer", "triton")
"""Parts of kernels' names, in the order in which engines choose among those that a GPU has (SGLang 0.5.14,
`attention_backend`; vLLM 0.25, `get_valid_backends`)."""

_WEIGHT_BITS = {
    "bfloat16": 16.0,
    "fp8": 8.0,
    "fp8_block": 8.0,
    "nvfp4": 4.5,
    "int4_wo": 4.0,
    "w4a16_mxfp4": 4.25,
    "w4a8_mxfp4_mxfp8": 4.25,
}


def _flops(dtype: str, gpu: GPU) -> float:
    """Peak rate of the arithmetic that rows of a format are multiplied in."""
    rates = {
        "fp8": gpu.fp8_flops,
        "fp8_block": gpu.fp8_flops,
        "w4a8_mxfp4_mxfp8": gpu.fp8_flops,
        "nvfp4": gpu.fp4_flops or gpu.fp8_flops,
    }
    return rates.get(dtype) or gpu.bf16_flops


def _by_dtype(rows: DataFrame, of: Callable[[str], float]) -> FloatArray:
    return np.asarray(rows["dtype"].map({dtype: of(dtype) for dtype in rows["dtype"].unique()}), dtype=np.float64)


def _gemm_least(rows: DataFrame, gpu: GPU) -> Least:
    """Both operands and the result once; activations may come in the weights' format."""
    m, n, k = (rows[name].to_numpy(np.float64) for name in ("tokens", "n", "k"))
    weights = _by_dtype(rows, lambda dtype: _WEIGHT_BITS[dtype] / 8)
    moved = weights * n * k + 2 * m * n + weights * m * k
    return Least(moved, 2 * m * n * k / _by_dtype(rows, lambda dtype: _flops(dtype, gpu)))


def _experts_least(rows: DataFrame, gpu: GPU) -> Least:
    """What a mean rank computes; and, where each rank has a slice of every expert, one token's experts' weights.

    Experts have two matrices at the least (a gate is a third).
    """
    names = ("tokens", "hidden", "intermediate", "per_token", "experts", "moe_tp", "moe_ep")
    tokens, hidden, intermediate, per_token, _, moe_tp, moe_ep = (rows[name].to_numpy(np.float64) for name in names)
    one = 2 * hidden * intermediate / moe_tp
    flops = 2 * tokens * per_token * one / moe_ep
    read = np.where(moe_ep == 1, per_token, 0) * one * _by_dtype(rows, lambda dtype: _WEIGHT_BITS[dtype] / 8)
    return Least(read, flops / _by_dtype(rows, lambda dtype: _flops(dtype, gpu)))


def _kv_bytes(rows: DataFrame) -> FloatArray:
    return np.asarray(np.where(rows["kv_dtype"] == "fp8", 1.0, 2.0))


def _attended(rows: DataFrame) -> FloatArray:
    """Tokens that are seen of each sequence."""
    length, window = rows["length"].to_numpy(np.float64), rows["window"].to_numpy(np.float64)
    return np.where(window > 0, np.minimum(length, window), length)


def _decode_least(rows: DataFrame, gpu: GPU) -> Least:
    """Keys and values once."""
    kv = 2 * rows["kv_heads"] * rows["head_dim"] * rows["batch"] * _attended(rows) * _kv_bytes(rows)
    return Least(np.asarray(kv), np.zeros(len(rows)))


def _prefill_least(rows: DataFrame, gpu: GPU) -> Least:
    """Both products of a causal triangle, or of a band within it."""
    length, seen = rows["length"].to_numpy(np.float64), _attended(rows)
    pairs = rows["batch"] * (length * seen - seen * (seen - 1) / 2)
    rate = np.where(rows["dtype"] == "fp8", gpu.fp8_flops or gpu.bf16_flops, gpu.bf16_flops)
    return Least(np.zeros(len(rows)), np.asarray(4 * rows["heads"] * rows["head_dim"] * pairs / rate))


# A token's latent vector with its rotary keys, and the values of it (DeepSeek-V2's sizes, which all published tables
# of latent attention have).
_LATENT, _LATENT_ROTARY = 512, 64


def _latent_decode_least(rows: DataFrame, gpu: GPU) -> Least:
    kv = (_LATENT + _LATENT_ROTARY) * rows["batch"] * rows["length"] * _kv_bytes(rows)
    return Least(np.asarray(kv), np.zeros(len(rows)))


def _latent_prefill_least(rows: DataFrame, gpu: GPU) -> Least:
    """Queries and keys of 192, values of 128, over a causal triangle."""
    length = rows["length"].to_numpy(np.float64)
    flops = 2 * (192 + 128) * rows["heads"] * rows["batch"] * length * (length + 1) / 2
    return Least(np.zeros(len(rows)), np.asarray(flops / (gpu.fp8_flops or gpu.bf16_flops)))


def _unbounded(rows: DataFrame, gpu: GPU) -> Least:
    """No bound: what moves is not told by the columns."""
    return Least(np.zeros(len(rows)), np.zeros(len(rows)))


def _bmm_least(rows: DataFrame, gpu: GPU) -> Least:
    """The weights of all heads, ``[128, 512]`` each, in FP8 at the least."""
    return Least(np.asarray(rows["heads"] * 128.0 * _LATENT), np.zeros(len(rows)))


def _all_to_all_least(rows: DataFrame, gpu: GPU) -> Least:
    """Half of the ranks that a token could go to, in FP8."""
    ranks = np.minimum(rows["per_token"], rows["ep"]) * (rows["ep"] - 1) / rows["ep"] / 2
    sent = rows["tokens"] * ranks * size_bytes(1, "fp8") * rows["hidden"]
    return Least(np.zeros(len(rows)), np.asarray(sent / gpu.link_bytes_per_s))


_ATTENTION_KINDS = {"dtype": "attn_dtype", "kv_dtype": "kv_cache_dtype"}
_ATTENTION_SIZES = {
    "heads": "num_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "window": "window_size",
}
_NO_WINDOW = {"window_size": 0}
_LATENT_KINDS = {"dtype": "mla_dtype", "kv_dtype": "kv_cache_dtype"}
_MODULE_KINDS = {**_LATENT_KINDS, "gemm_dtype": "gemm_type"}
_SPARSE_KINDS = {"op": "op_name", "model": "model", **_MODULE_KINDS}
_DELTA_NET_KINDS = {"kernel": "kernel_source"}
_DELTA_NET_SIZES = {
    "hidden": "d_model",
    "k_heads": "num_k_heads",
    "k_dim": "head_k_dim",
    "v_heads": "num_v_heads",
    "v_dim": "head_v_dim",
    "conv_width": "d_conv",
}
_BATCH_OF_PROMPTS = {"batch": "batch_size", "length": "isl"}
_BATCH_OF_DECODES = {"batch": "batch_size", "length": "step"}

OPERATORS = (
    Operator(GEMM, "gemm_perf", {"dtype": "gemm_dtype"}, {"n": "n", "k": "k"}, {"tokens": "m"}, _gemm_least),
    Operator(
        "experts",
        "moe_perf",
        {"dtype": "moe_dtype", "distribution": "distribution"},
        {
            "hidden": "hidden_size",
            "intermediate": "inter_size",
            "per_token": "topk",
            "experts": "num_experts",
            "moe_tp": "moe_tp_size",
            "moe_ep": "moe_ep_size",
        },
        {"tokens": "num_tokens"},
        _experts_least,
    ),
    Operator(
        "prefill_attention",
        "context_attention_perf",
        _ATTENTION_KINDS,
        _ATTENTION_SIZES,
        _BATCH_OF_PROMPTS,
        _prefill_least,
        filled=_NO_WINDOW,
        kernel="kernel_source",
    ),
    Operator(
        "decode_attention",
        "generation_attention_perf",
        _ATTENTION_KINDS,
        _ATTENTION_SIZES,
        _BATCH_OF_DECODES,
        _decode_least,
        first={"step": 1},
        filled=_NO_WINDOW,
        kernel="kernel_source",
    ),
    Operator(
        "latent_prefill_module",
        "mla_context_module_perf",
        _MODULE_KINDS,
        {"heads": "num_heads"},
        _BATCH_OF_PROMPTS,
        _latent_prefill_least,
    ),
    Operator(
        "latent_decode_module",
        "mla_generation_module_perf",
        _MODULE_KINDS,
        {"heads": "num_heads"},
        _BATCH_OF_DECODES,
        _latent_decode_least,
    ),
    Operator(
        "latent_prefill",
        "context_mla_perf",
        _LATENT_KINDS,
        {"heads": "num_heads"},
        _BATCH_OF_PROMPTS,
        _latent_prefill_least,
    ),
    Operator(
        "latent_decode",
        "generation_mla_perf",
        _LATENT_KINDS,
        {"heads": "num_heads"},
        _BATCH_OF_DECODES,
        _latent_decode_least,
        first={"step": 1},
    ),
    Operator(
        "latent_bmm",
        "mla_bmm_perf",
        {"op": "op_name", "dtype": "bmm_dtype"},
        {"heads": "num_heads"},
        {"tokens": "num_tokens"},
        _bmm_least,
    ),
    Operator(
        "sparse_prefill",
        "dsa_context_module_perf",
        _SPARSE_KINDS,
        {"heads": "num_heads", "cached": "step"},
        _BATCH_OF_PROMPTS,
        _unbounded,
    ),
    Operator(
        "sparse_decode",
        "dsa_generation_module_perf",
        _SPARSE_KINDS,
        {"heads": "num_heads"},
        _BATCH_OF_DECODES,
        _unbounded,
    ),
    Operator(
        "delta_net_prefill",
        "gdn_perf",
        _DELTA_NET_KINDS,
        _DELTA_NET_SIZES,
        {"batch": "batch_size", "length": "seq_len"},
        _unbounded,
        only={"phase": "context"},
    ),
    Operator(
        "delta_net_decode",
        "gdn_perf",
        _DELTA_NET_KINDS,
        _DELTA_NET_SIZES,
        {"tokens": "batch_size"},
        _unbounded,
        only={"phase": "generation"},
    ),
    Operator(
        "all_to_all",
        "moe_a2a_perf",
        {"backend": "comm_backend", "phase": "phase"},
        {"ep": "ep_size", "hidden": "hidden_size", "per_token": "topk", "experts": "num_experts"},
        {"tokens": "num_tokens"},
        _all_to_all_least,
        latency="transmit_us",
        unit_s=MICROSECONDS,
    ),
)
"""What is read of a folder, where it is there."""
