"""The constant alpha of the ``skew`` attention model, which says how much the longest context counts."""

from __future__ import annotations

import numpy as np

from l4sim.batch import Batch
from l4sim.cost.attention.coarse import MeanAttention, uniform
from l4sim.cost.attention.fluid import FloatArray
from l4sim.cost.model import AttentionModel


def best_alpha(mean_s: FloatArray, longest_s: FloatArray, seconds: FloatArray) -> float:
    """The constant alpha of ``skew`` with the least absolute error of seconds over ``mean_s``, >= 0.

    All of shape ``[batches]``: seconds with every decode at the mean length, at the greatest, and as they are. Least
    absolute errors have their optimum at a weighted median; 0 where the lengths of no batch differ.
    """
    spans, excess = longest_s / mean_s - 1, seconds / mean_s - 1
    spans, excess = spans[spans > 0], excess[spans > 0]
    if not len(spans):
        return 0.0
    ratios = excess / spans
    order = np.argsort(ratios)
    weights = np.cumsum(spans[order])
    return max(0.0, float(ratios[order][np.searchsorted(weights, weights[-1] / 2)]))


def skew_alpha(tile: AttentionModel) -> float:
    """The constant alpha that comes closest to ``tile`` on seeded log-normal batches, where nothing was measured."""
    rng = np.random.default_rng(0)
    rows = []
    for count in (8, 16, 32, 64, 128, 256):
        for _ in range(8):
            contexts = rng.lognormal(7.5, 1.2, count).astype(np.int64) + 1
            batch = Batch(contexts, int(contexts.sum()))
            longest = uniform(batch, int(contexts.max()))
            rows.append((MeanAttention(tile).attention_s(batch), tile.attention_s(longest), tile.attention_s(batch)))
    return best_alpha(*np.array(rows).T)
