"""Profiles from LLMServingSim's folders: one model's operators, measured in vLLM."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from msgspec import to_builtins
from numpy.typing import NDArray

from l4sim.calibration.all_reduces import all_reduces_of
from l4sim.calibration.datasheet import assumed_kernels, host_json
from l4sim.calibration.fits.curves import thinned_curve
from l4sim.calibration.fits.gemm import GemmPoints, fit_gemm
from l4sim.calibration.importers.importer import Given, Importer
from l4sim.calibration.kernels import fit_kernel
from l4sim.calibration.points.attention import MixedPoints, ProfiledBatches, SkewPoints
from l4sim.calibration.points.tables import distinct, find_file, read_points
from l4sim.calibration.profile_json import kernel_json
from l4sim.cost.curve import Curve, OverSequences, OverTokens
from l4sim.cost.elementwise import ElementwiseCoefficients
from l4sim.cost.operators import MeasuredOperators, OperatorSizes
from l4sim.errors import InputError
from l4sim.specs.dtypes import size_bytes
from l4sim.specs.fitted import EAGER_TIMED
from l4sim.specs.gpu import GPU
from l4sim.specs.memory import check_tensor_parallel
from l4sim.specs.model import Model, uniform_layers

FloatArray = NDArray[np.float64]
C = TypeVar("C", bound=Curve)

_SOURCE = "LLMServingSim profile"

# In the order of LayerGroup.products.
_PRODUCTS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
# Operators of one layer with their repeats; Qwen3 normalises queries and keys besides.
_LAYER = dict.fromkeys(_PRODUCTS, 1) | {"layernorm": 2, "rotary_emb": 1, "act_fn": 1}
_LAYER_OPTIONAL = {"qk_norm": 1}
_ONCE = {"embedding": 1, "final_layernorm": 1}
_SAMPLED = {"lm_head": 1}
_SAMPLED_OPTIONAL = {"sampler": 1}

_SKEW_LAUNCHES = 3
_TOLERANCE = 0.01
_BANDWIDTH_FRACTION = 0.8
# Heads that were measured reach nine tenths of the bandwidth and more.
_LEAST_HEAD_BANDWIDTH = 0.6
_CACHES = 3


def import_llmservingsim(
    folder: Path, gpu: GPU, model: Model, *, tensor_parallel: int = 1, host_overhead_s: float | None = None
) -> dict[str, Any]:
    """Turn ``dense.csv``, ``per_sequence.csv``, ``attention.csv`` and, where there is one, ``skew.csv`` into a profile.

    The CSVs may be gzipped; ``meta.yaml`` tells where they come from. Attention is taken to be FlashAttention-2. The
    folder's times are those of one rank of ``model`` at ``tensor_parallel``: for them the operators are kept as curves
    within 1 % of every point; for other models the products' physical coefficients are fitted to them. The host's
    overhead per iteration is what vLLM was found to show beside such times, unless it is given.

    Raises:
        InputError: a missing file, an operator that is missing or unknown, a value that is not a number above 0, or
            times of another tensor-parallel size.
    """
    check_tensor_parallel(model, tensor_parallel)
    meta = read_meta(folder)
    _refuse_other_ranks(folder, meta, tensor_parallel)
    dense, per_sequence = find_file(folder, "dense.csv"), find_file(folder, "per_sequence.csv")
    operators = read_operators(dense, per_sequence, model, tensor_parallel)
    profiled = ProfiledBatches(
        read_mixed_points(find_file(folder, "attention.csv")),
        _skew_points(folder),
        **uniform_layers(model).attention.of_rank(tensor_parallel).sizes,
    )
    # Before attention, whose fit takes seconds, all that may be refused.
    points = _product_points(dense, per_sequence, model, tensor_parallel)
    linear, linear_errors = fit_gemm(points, gpu, corrected=False)
    _refuse_slow_head(per_sequence, gpu, model, tensor_parallel)
    attention, attention_report = fit_kernel("fa2", profiled, gpu)
    smallest_s = float(np.mean([_read(dense, "tokens", name)[1][0] for name in ("layernorm", "rotary_emb", "act_fn")]))
    return {
        "name": gpu.name,
        "measured": True,
        "gpu": asdict(gpu),
        "provenance": {
            "date": meta.get("profiled_at"),
            "gpu_clock": None,
            "driver": None,
            "cuda": meta.get("cuda_version"),
            "torch": None,
            "source": f"{_SOURCE} of {meta.get('model', model.name)} on {meta.get('gpu', gpu.name)}",
            "licence": "MIT (casys-kaist/LLMServingSim)",
            "kernels": f"vLLM {meta['vllm_version']}" if "vllm_version" in meta else None,
        },
        "default_kernel": "fa2",
        "kernels": {
            "fa2": kernel_json(
                attention,
                attention_report.to_json(),
                f"{_SOURCE}: FlashAttention-2 with {model.name}'s heads; errors of skew are those of t_skew / t_mean",
            ),
            **assumed_kernels(gpu),
        },
        "linear": {
            "coefficients": asdict(linear),
            "errors": linear_errors.to_json(),
            "source": f"{_SOURCE}: the products of {model.name}, a fifth of the shapes held out",
        },
        "elementwise": {
            "coefficients": asdict(ElementwiseCoefficients(smallest_s, _BANDWIDTH_FRACTION)),
            "source": f"{_SOURCE}: the smallest norms, rotary embeddings and activations; bandwidth not measured",
        },
        "operators": {"models": [to_builtins(operators)], "source": f"{_SOURCE}, within 1 % of every point"},
        "all_reduce": all_reduces_of(gpu),
        "host_overhead": host_json(EAGER_TIMED)
        if host_overhead_s is None
        else {"seconds": host_overhead_s, "source": "as given when it was imported"},
    }


def _refuse_other_ranks(folder: Path, meta: Mapping[str, str], tensor_parallel: int) -> None:
    """Refuse a folder that was profiled for other tensor-parallel sizes, as far as its ``meta.yaml`` tells."""
    profiled = meta.get("tp_degrees")
    if profiled is not None and tensor_parallel not in map(int, re.findall(r"\d+", profiled)):
        raise InputError(
            f"{folder / 'meta.yaml'}: tp_degrees are {profiled}, tables of tensor parallel {tensor_parallel} are needed"
        )


def _refuse_slow_head(per_sequence: Path, gpu: GPU, model: Model, tensor_parallel: int) -> None:
    """Refuse tables of fewer ranks than they are taken for: a head of half the weights would read at half the rate.

    Those of more ranks beat the roofline, which ``fit_gemm`` refuses. A head that caches may hold tells nothing.
    """
    weight_bytes = size_bytes(model.vocab * model.hidden, model.dtype) / tensor_parallel
    seconds = float(_read(per_sequence, "sequences", "lm_head")[1].min())
    reached = weight_bytes / seconds / gpu.memory_bytes_per_s
    if reached < _LEAST_HEAD_BANDWIDTH and weight_bytes > _CACHES * gpu.l2_bytes:
        raise InputError(
            f"{per_sequence}: lm_head takes {seconds * 1e6:.0f} us, {reached:.0%} of {gpu.name}'s bandwidth for the "
            f"weights of one of {tensor_parallel} ranks: these are times of another tensor-parallel size"
        )


def read_operators(dense: Path, per_sequence: Path, model: Model, tensor_parallel: int) -> MeasuredOperators:
    """One rank's operators of ``model``, from tables ``layer,tokens,time_us`` and ``layer,sequences,time_us``.

    Raises:
        InputError: an operator that is missing or unknown, or a value that is not a number above 0.
    """
    _refuse_unknown(dense, {**_LAYER, **_LAYER_OPTIONAL, **_ONCE})
    _refuse_unknown(per_sequence, {**_SAMPLED, **_SAMPLED_OPTIONAL})
    return MeasuredOperators(
        **asdict(OperatorSizes.of(model, uniform_layers(model))),
        tensor_parallel=tensor_parallel,
        layer=_sum(OverTokens, dense, "tokens", _LAYER, _LAYER_OPTIONAL),
        once=_sum(OverTokens, dense, "tokens", _ONCE, {}),
        sampled=_sum(OverSequences, per_sequence, "sequences", _SAMPLED, _SAMPLED_OPTIONAL),
    )


def _product_points(dense: Path, per_sequence: Path, model: Model, tensor_parallel: int) -> GemmPoints:
    """The products of all shapes, lm_head among them, as points of one fit."""
    vocab = -(-model.vocab // tensor_parallel)
    shapes = dict(zip(_PRODUCTS, uniform_layers(model).of_rank(tensor_parallel).products(model.hidden), strict=True))
    read = [(*_read(dense, "tokens", name), shape) for name, shape in shapes.items()]
    read.append((*_read(per_sequence, "sequences", "lm_head"), (vocab, model.hidden)))
    return GemmPoints(
        m=np.concatenate([m for m, _, _ in read]).astype(np.int64),
        n=np.concatenate([np.full(len(m), n) for m, _, (n, _) in read]),
        k=np.concatenate([np.full(len(m), k) for m, _, (_, k) in read]),
        seconds=np.concatenate([seconds for _, seconds, _ in read]),
    )


def _sum(kind: type[C], path: Path, size: str, repeats: dict[str, int], optional: dict[str, int]) -> C:
    """The operators' times, each as often as it runs, as one curve."""
    there = distinct(path, "layer")
    sizes, _ = _read(path, size, next(iter(repeats)))
    total = np.zeros(len(sizes))
    for name, count in (repeats | {name: count for name, count in optional.items() if name in there}).items():
        total += count * np.interp(sizes, *_read(path, size, name))
    return thinned_curve(kind, sizes, total, _TOLERANCE)


def _read(path: Path, size: str, operator: str) -> tuple[FloatArray, FloatArray]:
    """Sizes, ascending, and seconds of one operator; both of shape ``[points]``."""
    table = read_points(path, (size, "time_us"), only={"layer": operator})
    order = np.argsort(table[size])
    return table[size][order], table["time_us"][order] * 1e-6


def _refuse_unknown(path: Path, known: dict[str, int]) -> None:
    for name in distinct(path, "layer"):
        if name not in known:
            raise InputError(f"{path}: operator {name} is not of a dense decoder, accepted are {', '.join(known)}")


def _skew_points(folder: Path) -> SkewPoints | None:
    there = [path for path in (folder / "skew.csv", folder / "skew.csv.gz") if path.is_file()]
    return read_skew_points(there[0]) if there else None


def read_mixed_points(path: Path) -> MixedPoints:
    """Read LLMServingSim's ``attention.csv``: one layer, microseconds.

    Raises:
        InputError: as ``read_points``.
    """
    names = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
    columns = read_points(path, ("time_us",), or_zero=names)
    chunk, cached, decodes, contexts = (columns[name].astype(np.int64) for name in names)
    return MixedPoints(chunk, cached, decodes, contexts + 1, columns["time_us"] * 1e-6)


def read_skew_points(path: Path) -> SkewPoints:
    """Read LLMServingSim's ``skew.csv``: sums of three launches of one layer, microseconds.

    Raises:
        InputError: as ``read_points``.
    """
    names = ("n", "nb", "kvs", "kv_big", "kv_mean", "t_mean_us", "t_max_us", "t_skew_us")
    columns = read_points(path, names, or_zero=("pc", "kp"))
    n, big, short, long, mean, chunk, cached = (columns[k].astype(np.int64) for k in (*names[:5], "pc", "kp"))
    seconds = (columns[name] * 1e-6 / _SKEW_LAUNCHES for name in names[5:])
    return SkewPoints(n, big, short + 1, long + 1, mean + 1, chunk, cached, *seconds)


def read_meta(folder: Path) -> dict[str, str]:
    """The top-level texts of a profile's ``meta.yaml``; empty if there is no such file."""
    path = folder / "meta.yaml"
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    pairs = (line.partition(":") for line in lines if not line.startswith((" ", "#", "-")))
    return {name: value.strip().strip("'\"") for name, _, value in pairs if value.strip()}


def _load(path: Path, gpu: GPU, given: Given) -> dict[str, Any]:
    if given.model is None:
        raise InputError(f"{path}: --model is missing: the model that LLMServingSim measured")
    return import_llmservingsim(
        path,
        gpu,
        given.model,
        tensor_parallel=given.tensor_parallel or 1,
        host_overhead_s=given.host_overhead_s,
    )


IMPORTER = Importer("LLMServingSim", Path.is_dir, _load, asks=True)
