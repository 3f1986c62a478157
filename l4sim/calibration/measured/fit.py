"""Making a ``profile.json`` of a folder of points that ``l4sim profile measure`` wrote."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import to_builtins

from l4sim.calibration.all_reduces import all_reduces_of
from l4sim.calibration.datasheet import assumed_kernels
from l4sim.calibration.fits.all_reduce import fit_all_reduce
from l4sim.calibration.fits.errors import FloatArray
from l4sim.calibration.fits.gemm import GemmPoints, fit_few_gemm
from l4sim.calibration.kernels import CALIBRATIONS, fit_kernel
from l4sim.calibration.measured.folder import (
    Measured,
    ModelKey,
    read_attention,
    read_columns,
    read_iterations,
    read_measured,
)
from l4sim.calibration.measured.operators import (
    Iterations,
    fit_elementwise,
    fit_host_overhead,
    fit_operators,
)
from l4sim.calibration.points.batches import PREFILL_KERNEL, BatchPoint, MeasuredBatches
from l4sim.calibration.profile_json import all_reduce_json, kernel_json
from l4sim.cost.attention import build_attention
from l4sim.cost.attention.shape import Shape
from l4sim.cost.communication import AllReduceTable
from l4sim.cost.elementwise import ElementwiseCoefficients, layer_elementwise_s
from l4sim.cost.gemm import GemmCoefficients
from l4sim.cost.host import HostOverhead
from l4sim.cost.linear import layer_linear_s
from l4sim.cost.operators import MeasuredOperators
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU

_TABLES = ("attention", "linear", "elementwise", "layers", "sampled")
_LEAST_SHAPES = 5
_LEAST_ITERATIONS = 4


def fit_measured(folder: Path) -> dict[str, Any]:
    """Fit everything in a measured folder; returns what ``profile.json`` holds, held-out errors included.

    FlashInfer's kernels with too few points keep their assumed coefficients, and their source says so.

    Raises:
        InputError: a table that is missing or cannot be read, or too few points of the kernel that serves.
    """
    measured = read_measured(folder)
    for table in _TABLES:
        if not (folder / f"{table}.csv").is_file():
            raise InputError(f"{folder}: no {table}.csv yet: measure for longer")
    gpu = measured.gpu
    kernels = _kernels(measured, read_attention(folder, gpu))
    linear, linear_errors = _linear(folder, gpu)
    elementwise, elementwise_errors = fit_elementwise(folder, gpu)
    # Where nothing is captured, steps have any number of tokens, and a curve's own points are the best guess between.
    stairs = partial(_layer_s, gpu, linear, elementwise) if measured.captured.steps else None
    operators = fit_operators(folder, stairs, measured.captured)
    host, host_errors, host_source = _host(folder, measured, kernels, {k: v for k, (v, _) in operators.items()})
    return {
        "name": measured.name,
        "measured": True,
        "gpu": asdict(gpu),
        "provenance": asdict(measured.provenance),
        **({} if measured.reference_s is None else {"reference_s": measured.reference_s}),
        "default_kernel": measured.served_kernel,
        "kernels": kernels,
        "linear": {
            "coefficients": asdict(linear),
            "errors": linear_errors,
            "source": "ours: torch.nn.functional.linear, a fifth of the points held out, most shapes known at other m",
        },
        "elementwise": {
            "coefficients": asdict(elementwise),
            "errors": elementwise_errors.to_json() if elementwise_errors else {},
            "source": "ours: PyTorch's additions, norms, activations and copies",
        },
        "operators": {
            "models": [to_builtins(entry) for entry, _ in operators.values()],
            "errors": next(iter(operators.values()))[1].to_json(),
            "source": f"ours: layers of the live engine without attention, {', '.join(k.model for k in operators)}; "
            f"errors of {next(iter(operators)).model} between measured points",
        },
        "all_reduce": _all_reduce(folder, gpu),
        "captured": asdict(measured.captured),
        "host_overhead": {
            "seconds": host.decode_s,
            "prompt_s": host.prompt_s,
            "sequence_s": host.sequence_s,
            "errors": host_errors,
            "source": host_source,
        },
    }


def _kernels(measured: Measured, points: list[BatchPoint]) -> dict[str, Any]:
    served = measured.served_kernel
    # FlashInfer's kernels come together: an engine that serves with one of them can serve with the others.
    known = CALIBRATIONS.get(served)
    fitted = assumed_kernels(measured.gpu) if known is not None and known.assume is not None else {}
    for kernel in sorted({point.kernel for point in points} - {PREFILL_KERNEL}):
        try:
            coefficients, report = fit_kernel(kernel, MeasuredBatches(points), measured.gpu)
        except InputError as error:
            if kernel == served:
                raise
            fitted[kernel]["source"] += f" ({error})"
        else:
            fitted[kernel] = kernel_json(coefficients, report.to_json(), f"ours: {_counts(kernel, points)}")
    if served not in {point.kernel for point in points}:
        raise InputError(f"{measured.name}: no attention points of {served}: measure for longer")
    return fitted


def _counts(kernel: str, points: list[BatchPoint]) -> str:
    """How many points there are of a kernel, and how many of its decodes have unequal lengths."""
    own = [point for point in points if point.kernel == kernel]
    decodes = [point for point in own if not point.batch.prefills]
    uneven = sum(point.pattern != "uniform" for point in decodes)
    return f"{len(own)} batches, {uneven} of {len(decodes)} decodes of unequal lengths"


def _linear(folder: Path, gpu: GPU) -> tuple[GemmCoefficients, dict[str, float]]:
    table = read_columns(folder, "linear", ("m", "n", "k"))
    m, n, k = (table[name].astype(np.int64) for name in ("m", "n", "k"))
    shapes = len(np.unique(np.stack([n, k]), axis=1).T)
    if shapes < _LEAST_SHAPES:
        raise InputError(
            f"{folder / 'linear.csv'}: {shapes} shapes (n, k), accepted are {_LEAST_SHAPES} or more: measure for longer"
        )
    fitted, report = fit_few_gemm(GemmPoints(m, n, k, table["median_s"]), gpu)
    return fitted, report.to_json()


def _layer_s(
    gpu: GPU, linear: GemmCoefficients, elementwise: ElementwiseCoefficients, key: ModelKey, tokens: FloatArray
) -> FloatArray:
    """Seconds of a layer without attention, by the fits of its matrix products and element-wise operators."""
    hidden, layer, rows = key.sizes.hidden, key.sizes.one_layer, tokens.astype(np.int64)
    return layer_linear_s(hidden, layer, gpu, linear, rows) + layer_elementwise_s(hidden, layer, gpu, elementwise, rows)


def _shape(key: ModelKey, measured: Measured) -> Shape:
    return Shape(key.sizes.heads, key.sizes.kv_heads, key.sizes.head_dim, measured.gpu.sms)


def _host(
    folder: Path, measured: Measured, kernels: dict[str, Any], operators: dict[ModelKey, MeasuredOperators]
) -> tuple[HostOverhead, dict[str, float], str]:
    """What iterations take beyond their operators, of all models with enough whole ones; its errors and its source.

    Where whole iterations show that attention takes longer in them than alone (on a CPU), they also correct the
    coefficients of the kernel that serves, in place.
    """
    models = [
        (key.model, points, operators[key], _shape(key, measured))
        for key, points in read_iterations(folder).items()
        if key in operators and len(points) >= _LEAST_ITERATIONS
    ]
    if not models:
        return HostOverhead(0.0, 0.0), {}, f"too few whole iterations in {folder.name}; not measured"
    served = measured.served_kernel
    coefficients = kernels[served]["coefficients"]
    iterations = [
        Iterations(points, of_model, shape, build_attention(served, coefficients, **asdict(shape)))
        for _, points, of_model, shape in models
    ]
    names = ", ".join(name for name, *_ in models)
    source = f"ours: whole iterations of the live engine, {names}"
    correct = CALIBRATIONS[served].correct
    corrected = None if correct is None else correct(iterations, coefficients)
    if corrected is not None:
        coefficients |= corrected.attention
        kernels[served]["source"] += "; within iterations as they have it, errors are of attention alone"
        return corrected.host, corrected.errors.to_json(), source
    host, report = fit_host_overhead(iterations, measured.captured)
    return host, report.to_json(), source


def _all_reduce(folder: Path, gpu: GPU) -> dict[str, Any]:
    """Curves between the measured sizes, beside what is known of the GPU where one was measured alone."""
    if not (folder / "all_reduce.csv").is_file():
        return all_reduces_of(gpu)
    table = read_columns(folder, "all_reduce", ("gpus", "size_bytes"))
    order = np.argsort(table["size_bytes"])
    tables = []
    for count in np.unique(table["gpus"]).astype(int):
        own = order[table["gpus"][order] == count]
        curve, report = fit_all_reduce(table["size_bytes"][own], table["median_s"][own])
        tables.append(AllReduceTable(int(count), "eager", "NCCL", gpu.name, True, curve, report.to_json()))
    return all_reduce_json(tables, "ours: NCCL from one process")
