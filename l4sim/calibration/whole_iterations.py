"""Fitting what whole iterations of a recorded engine take: a few coefficients, and their held-out errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from l4sim.batch import Batch
from l4sim.calibration.fits.errors import BoolArray, FloatArray, errors
from l4sim.cost.curve import OverTokens
from l4sim.cost.whole_iterations import ModelSizes, WholeIterations, pairs
from l4sim.errors import InputError

LEAST_ITERATIONS = 100
"""Fewer tell the coefficients from one another by chance (ours)."""

_STRETCHES, _HELD_OUT = 25, 5
"""Iterations are held out in whole stretches of the run: neighbours are too alike to be a test."""

_KNOTS = 2.0 ** np.arange(5, 16)
_LEAST_BEYOND = 0.01
"""Of all iterations, beyond a knot of the curve; with fewer its slope would be noise."""

_HICCUP = 4.0
"""Iterations that take so many times what is predicted are the machine's hiccups, or its first steps (ours)."""

_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class FittedIterations:
    """Coefficients, and how far they are off on iterations that they were not fitted to."""

    fitted: WholeIterations
    errors: dict[str, float]
    """As `l4sim.calibration.fits.errors.Errors`, hiccups flagged, and ``total_pct``: the error of all their seconds
    together, hiccups included."""


def fit_whole_iterations(
    batches: Sequence[Batch], seconds: Sequence[float], sizes: ModelSizes, tensor_parallel: int
) -> FittedIterations:
    """Fit the iterations of one run, in the order in which they ran.

    Least squares of relative errors with no coefficient below 0, errors relative to what is predicted: relative to what
    was measured, slow iterations would count less, and all predictions come out short. Source: ours.

    Raises:
        InputError: too few iterations.
    """
    if len(batches) < LEAST_ITERATIONS:
        raise InputError(f"{len(batches)} iterations, accepted are {LEAST_ITERATIONS} or more: record for longer")
    taken_s = np.array(seconds, dtype=np.float64)
    knots = _knots(np.array([batch.tokens for batch in batches]))
    terms = np.array([_terms(batch, knots) for batch in batches])
    stretch = np.arange(len(batches)) * _STRETCHES // len(batches)
    held_out = stretch % _HELD_OUT == _HELD_OUT // 2
    tested = _coefficients(terms[~held_out], taken_s[~held_out])
    predicted_s = terms[held_out] @ tested
    plain = ~_hiccups(predicted_s, taken_s[held_out])
    told = errors(predicted_s[plain], taken_s[held_out][plain], flagged=int((~plain).sum())).to_json()
    told["total_pct"] = float(100 * (predicted_s.sum() / taken_s[held_out].sum() - 1))
    return FittedIterations(_named(_coefficients(terms, taken_s), knots, sizes, tensor_parallel), told)


def _knots(tokens: FloatArray) -> FloatArray:
    """Where the curve over tokens may bend: powers of two with iterations enough beyond."""
    return np.array([knot for knot in _KNOTS if (tokens > knot).mean() >= _LEAST_BEYOND])


def _terms(batch: Batch, knots: FloatArray) -> list[float]:
    """What each coefficient is multiplied with."""
    return [
        1.0,
        float(batch.tokens),
        *np.maximum(batch.tokens - knots, 0.0).tolist(),
        float(bool(batch.prefills)),
        float(batch.sampled),
        float(batch.decode_context_sum),
        float(sum(pairs(chunk) for chunk in batch.prefills)),
    ]


def _coefficients(terms: FloatArray, seconds: FloatArray) -> FloatArray:
    """The coefficients of the terms, fitted to all iterations but hiccups; shape ``[terms]``."""
    from scipy.optimize import nnls

    scale = np.maximum(terms.max(axis=0), 1.0)
    expected_s, used = seconds, np.ones(len(seconds), dtype=np.bool_)
    for _ in range(_ROUNDS):
        weights = 1 / expected_s[used]
        found, _ = nnls(terms[used] / scale * weights[:, None], seconds[used] * weights)
        found = found / scale
        expected_s = np.maximum(terms @ found, np.finfo(np.float64).tiny)
        used = ~_hiccups(expected_s, seconds)
    return found


def _hiccups(expected_s: FloatArray, seconds: FloatArray) -> BoolArray:
    return np.asarray(seconds > _HICCUP * expected_s)


def _named(found: FloatArray, knots: FloatArray, sizes: ModelSizes, tensor_parallel: int) -> WholeIterations:
    base_s, token_s, *bends_s = found[: 2 + len(knots)].tolist()
    prompt_s, sequence_s, context_token_s, pair_s = found[2 + len(knots) :].tolist()
    # One more point beyond the last bend: the curve goes on as it does there.
    sizes_at = np.concatenate([[0.0], knots, [2 * _KNOTS[-1]]])
    curve_s = base_s + token_s * sizes_at
    for knot, bend_s in zip(knots, bends_s, strict=True):
        curve_s += bend_s * np.maximum(sizes_at - knot, 0.0)
    tokens = OverTokens(tuple(sizes_at.tolist()), tuple(curve_s.tolist()))
    return WholeIterations(sizes, tensor_parallel, tokens, prompt_s, sequence_s, context_token_s, pair_s)
