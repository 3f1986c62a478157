"""A measured model's operators as curves, and what its whole iterations take beyond them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from l4sim.cost.curve import thinned_curve
from l4sim.cost.elementwise import ElementwiseCoefficients
from l4sim.cost.fitting import Errors, FloatArray, errors
from l4sim.cost.measured import IterationPoint, ModelKey, read_by_model, read_columns
from l4sim.cost.model import AttentionModel
from l4sim.cost.operators import MeasuredOperators
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU

_TOLERANCE = 0.01
# Differences of two measured times may be noise: a curve stays above 0.
_LEAST_S = 1e-9


def fit_elementwise(folder: Path, gpu: GPU) -> ElementwiseCoefficients:
    """Seconds of one small kernel and the reached bandwidth, by least squares of relative errors.

    Raises:
        InputError: as ``read_columns``.
    """
    from scipy.optimize import nnls

    table = read_columns(folder, "elementwise", ("size_bytes",))
    size_bytes, seconds = table["size_bytes"], table["median_s"]
    scale = size_bytes.max()
    terms = np.stack([np.ones_like(seconds), size_bytes / scale], axis=1)
    (kernel_s, scaled_s), _ = nnls(terms / seconds[:, None], np.ones(len(seconds)))
    bandwidth = scale / max(scaled_s, _LEAST_S)
    return ElementwiseCoefficients(float(kernel_s), float(bandwidth / gpu.memory_bytes_per_s))


def fit_operators(folder: Path) -> dict[ModelKey, tuple[MeasuredOperators, Errors]]:
    """Curves of each model measured in a folder, and the errors of their layers between measured points.

    ``layers.csv`` holds passes through two numbers of layers (one of them may be 0) without attention, with one sampled
    token: their difference is a layer's time, the rest embedding, final norm and the head's smallest product.
    ``sampled.csv`` holds the head by sequences. An error is what a curve without one point predicts for it.

    Raises:
        InputError: a table or a model is missing, or a value is not a number above 0.
    """
    passes = read_by_model(folder, "layers", ("tokens", "layers"))
    heads = read_by_model(folder, "sampled", ("sequences",))
    fitted = {}
    for key, (sizes, seconds) in passes.items():
        if key not in heads:
            raise InputError(
                f"{folder / 'sampled.csv'}: no rows of {key.model}, which layers.csv has: measure for longer"
            )
        tokens, layer_s, rest_s = _layer_s(folder, key, sizes, seconds)
        sequences, sampled_s = _sorted(heads[key][0][:, 0].astype(np.float64), heads[key][1])
        once_s = np.maximum(rest_s - sampled_s[0], _LEAST_S)
        sizes_of = asdict(key)
        del sizes_of["model"]
        fitted[key] = (
            MeasuredOperators(
                **sizes_of,
                tensor_parallel=1,
                layer=thinned_curve(tokens, layer_s, _TOLERANCE),
                once=thinned_curve(tokens, once_s, _TOLERANCE),
                sampled=thinned_curve(sequences, sampled_s, _TOLERANCE),
            ),
            left_out_errors([(tokens, layer_s)]),
        )
    return fitted


def fit_host_overhead(
    points: Sequence[IterationPoint], operators: MeasuredOperators, attention: AttentionModel
) -> tuple[float, Errors]:
    """What iterations take beyond their operators, by every other point; errors on those between.

    The least sum of relative errors: a long iteration's error in its operators must not pass for the host's.
    """
    device_s = np.array([_device_s(point, operators, attention) for point in points])
    seconds = np.array([point.seconds for point in points])
    host_s = max(0.0, _weighted_median((seconds - device_s)[::2], 1 / seconds[::2]))
    return host_s, errors(device_s[1::2] + host_s, seconds[1::2], flagged=0)


def _weighted_median(values: FloatArray, weights: FloatArray) -> float:
    """The value with half of the weight on either side; shapes ``[n]``."""
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, below[-1] / 2)])


def left_out_errors(curves: Sequence[tuple[FloatArray, FloatArray]]) -> Errors:
    """What each point but the ends would be by its neighbours, over curves ``(sizes, seconds)`` of 3 points or more."""
    predicted, measured = [], []
    for sizes, seconds in curves:
        for row in range(1, len(sizes) - 1):
            ends = [row - 1, row + 1]
            predicted.append(np.interp(sizes[row], sizes[ends], seconds[ends]))
            measured.append(seconds[row])
    return errors(np.array(predicted), np.array(measured), flagged=0)


def _device_s(point: IterationPoint, operators: MeasuredOperators, attention: AttentionModel) -> float:
    batch = point.batch
    layer_s = float(operators.layer.at(batch.tokens)) + attention.attention_s(batch)
    return point.layers * layer_s + float(operators.once.at(batch.tokens)) + float(operators.sampled.at(batch.sampled))


def _layer_s(folder: Path, key: ModelKey, sizes: Any, seconds: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Tokens, ascending, with seconds of a layer and of the rest."""
    found: dict[int, dict[int, float]] = {}
    for (tokens, layers), value in zip(sizes.tolist(), seconds.tolist(), strict=True):
        found.setdefault(tokens, {})[layers] = value
    rows = []
    for tokens, by_layers in sorted(found.items()):
        if len(by_layers) < 2:
            continue
        few, many = min(by_layers), max(by_layers)
        layer_s = max((by_layers[many] - by_layers[few]) / (many - few), _LEAST_S)
        rows.append((tokens, layer_s, max(by_layers[few] - few * layer_s, _LEAST_S)))
    if len(rows) < 3:
        raise InputError(
            f"{folder / 'layers.csv'}: {len(rows)} numbers of tokens of {key.model} with two numbers of layers, "
            "accepted are 3 or more: measure for longer"
        )
    tokens, layer, rest = np.array(rows).T
    return tokens, layer, rest


def _sorted(sizes: FloatArray, seconds: FloatArray) -> tuple[FloatArray, FloatArray]:
    order = np.argsort(sizes)
    return sizes[order], seconds[order]
