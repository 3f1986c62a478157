"""A measured model's operators as curves, and the host's part: what whole iterations take beyond their operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from l4sim.calibration.fits.curves import thinned_curve
from l4sim.calibration.fits.errors import BoolArray, Errors, FloatArray, errors, held_out
from l4sim.calibration.measured.folder import IterationPoint, ModelKey, read_by_model, read_columns
from l4sim.cost.attention.shape import Shape
from l4sim.cost.captured import NONE_CAPTURED, Captured
from l4sim.cost.curve import OverSequences, OverTokens
from l4sim.cost.elementwise import ElementwiseCoefficients
from l4sim.cost.host import HostOverhead
from l4sim.cost.model import AttentionModel
from l4sim.cost.operators import MeasuredOperators
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU

_TOLERANCE = 0.01
# Differences of two measured times may be noise: a curve stays above 0.
_LEAST_S = 1e-9
_LEAST_BATCHES = 3

Scale = Callable[[FloatArray], FloatArray]


def fit_elementwise(folder: Path, gpu: GPU) -> tuple[ElementwiseCoefficients, Errors | None]:
    """Seconds of one small kernel and the reached bandwidth, and errors on a fifth of the points, held out.

    None stands for errors of fewer than five points.

    Raises:
        InputError: as ``read_columns``.
    """
    table = read_columns(folder, "elementwise", ("size_bytes",))
    size_bytes, seconds = table["size_bytes"], table["median_s"]
    fitted = _elementwise(size_bytes, seconds, gpu)
    unseen = held_out(len(seconds))
    if not unseen.any():
        return fitted, None
    of_seen = _elementwise(size_bytes[~unseen], seconds[~unseen], gpu)
    predicted_s = of_seen.kernel_s + size_bytes / (of_seen.bandwidth_fraction * gpu.memory_bytes_per_s)
    return fitted, errors(predicted_s[unseen], seconds[unseen], flagged=0)


def _elementwise(size_bytes: FloatArray, seconds: FloatArray, gpu: GPU) -> ElementwiseCoefficients:
    """By least squares of relative errors; both of shape ``[points]``."""
    from scipy.optimize import nnls

    scale = size_bytes.max()
    terms = np.stack([np.ones_like(seconds), size_bytes / scale], axis=1)
    (kernel_s, scaled_s), _ = nnls(terms / seconds[:, None], np.ones(len(seconds)))
    bandwidth = scale / max(scaled_s, _LEAST_S)
    return ElementwiseCoefficients(float(kernel_s), float(bandwidth / gpu.memory_bytes_per_s))


Stairs = Callable[[ModelKey, FloatArray], FloatArray]
"""A model's layer by the fits of its operators: seconds at many numbers of tokens, with the steps that matrix products
take from one tile to the next. They give a measured curve its shape between its points."""


def fit_operators(
    folder: Path, stairs: Stairs | None = None, captured: Captured = NONE_CAPTURED
) -> dict[ModelKey, tuple[MeasuredOperators, Errors]]:
    """Curves of each model measured in a folder, and the errors of their layers between measured points.

    ``layers.csv`` holds passes through two numbers of layers (one of them may be 0) without attention, with one sampled
    token: their difference is a layer's time, the rest embedding, final norm and the head's smallest product.
    ``sampled.csv`` holds the head by sequences. An error is what a curve without one point predicts for it.

    A curve also gets the captured numbers of tokens between the measured ones, by the ratio of what was measured to
    the ``stairs`` (products go by tiles): an engine with captured steps runs no others in between.

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
        scale = None if stairs is None else partial(stairs, key)
        between = np.array([size for size in captured.steps if tokens[0] < size < tokens[-1]], dtype=np.float64)
        knots = np.union1d(tokens, between)
        fitted[key] = (
            MeasuredOperators(
                **asdict(key.sizes),
                tensor_parallel=1,
                layer=thinned_curve(OverTokens, knots, _between(knots, tokens, layer_s, scale), _TOLERANCE),
                once=thinned_curve(OverTokens, tokens, once_s, _TOLERANCE),
                sampled=thinned_curve(OverSequences, sequences, sampled_s, _TOLERANCE),
            ),
            left_out_errors([(tokens, layer_s)], scale),
        )
    return fitted


def _between(sizes: FloatArray, known: FloatArray, seconds: FloatArray, stairs: Scale | None) -> FloatArray:
    """Seconds at sizes between known ones: interpolated linearly, or as a ratio to ``stairs``."""
    if stairs is None:
        return np.interp(sizes, known, seconds)
    return stairs(sizes) * np.interp(sizes, known, seconds / stairs(known))


class Iterations(NamedTuple):
    """One model's whole iterations, and what predicts the device's part of their seconds."""

    points: Sequence[IterationPoint]
    operators: MeasuredOperators
    shape: Shape
    attention: AttentionModel


class InIterations(NamedTuple):
    """What whole iterations show of attention and of the host."""

    attention: Mapping[str, float]
    """Those of the kernel's coefficients that differ from attention alone."""
    host: HostOverhead
    errors: Errors


def fit_host_overhead(models: Sequence[Iterations], captured: Captured = NONE_CAPTURED) -> tuple[HostOverhead, Errors]:
    """Fit the host's part to every other iteration: what each takes beyond its operators. Errors are on those between.

    It minimises the sum of relative errors: else the operators' errors in long iterations would count as the host's.
    """
    points = [point for model in models for point in model.points]
    known_s = np.array([device_s(point, model, captured) for model in models for point in model.points])
    seconds = np.array([point.seconds for point in points])
    sequences = np.array([point.batch.sampled for point in points])
    prompts = np.array([bool(point.batch.prefills) for point in points])
    rest_s = seconds - known_s
    fitted = np.arange(len(points)) % 2 == 0
    sequence_s = _slope(*(values[fitted & ~prompts] for values in (sequences, rest_s, seconds)))

    def base_s(kind: BoolArray) -> float:
        return max(0.0, weighted_median((rest_s - sequence_s * sequences)[kind], 1 / seconds[kind]))

    of_decodes, of_prompts = fitted & ~prompts, fitted & prompts
    # With points of one kind alone, what is known of it must do for the other.
    decode_s = base_s(of_decodes if of_decodes.any() else fitted)
    host = HostOverhead(decode_s, base_s(of_prompts) if of_prompts.any() else decode_s, sequence_s)
    host_s = np.where(prompts, host.prompt_s, host.decode_s) + sequence_s * sequences
    return host, errors((known_s + host_s)[~fitted], seconds[~fitted], flagged=0)


def _slope(sequences: NDArray[np.int64], rest_s: FloatArray, seconds: FloatArray) -> float:
    """Seconds per sequence, by least squares of relative errors; 0 where too few sizes tell it from a constant."""
    from scipy.optimize import nnls

    if len(np.unique(sequences)) < _LEAST_BATCHES:
        return 0.0
    scale = sequences.max()
    terms = np.stack([np.ones(len(sequences)), sequences / scale], axis=1)
    (_, slope), _ = nnls(terms / seconds[:, None], rest_s / seconds)
    return float(slope / scale)


def weighted_median(values: FloatArray, weights: FloatArray) -> float:
    """The value with half of the weight on either side; shapes ``[n]``."""
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, below[-1] / 2)])


def left_out_errors(curves: Sequence[tuple[FloatArray, FloatArray]], stairs: Scale | None = None) -> Errors:
    """Errors of interpolating each point but the ends from its two neighbours.

    ``curves`` are ``(sizes, seconds)``, each of 3 points or more.

    ``stairs``: see `fit_operators`.
    """
    predicted, measured = [], []
    for sizes, seconds in curves:
        for row in range(1, len(sizes) - 1):
            ends = [row - 1, row + 1]
            predicted.append(_between(sizes[[row]], sizes[ends], seconds[ends], stairs)[0])
            measured.append(seconds[row])
    return errors(np.array(predicted), np.array(measured), flagged=0)


def device_s(point: IterationPoint, model: Iterations, captured: Captured = NONE_CAPTURED) -> float:
    """Seconds of an iteration's operators, without the host's part."""
    batch, operators = point.batch, model.operators
    rows = int(captured.step_tokens(batch.tokens) if batch.prefills else captured.decoding_rows(batch.tokens))
    sampled = batch.sampled if batch.prefills else rows
    layer_s = float(operators.layer.at(rows)) + model.attention.attention_s(batch)
    return point.layers * layer_s + float(operators.once.at(rows)) + float(operators.sampled.at(sampled))


def _layer_s(folder: Path, key: ModelKey, sizes: Any, seconds: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Tokens, ascending, with the seconds of one layer and of all that is not in layers; each of shape ``[points]``."""
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
