"""Decode batches of equal total tokens, spread in different ways over their requests."""

from __future__ import annotations

from itertools import accumulate

import numpy as np

PATTERNS = ("uniform", "bimodal", "lognormal", "one-long")

_LONG_SHARE, _LONG_TIMES = 8, 16
_SIGMA = 1.0


def spread(pattern: str, requests: int, total_tokens: int, longest: int, seed: int = 0) -> tuple[int, ...] | None:
    """Context lengths that sum up to ``total_tokens``, in a seeded random order; shape ``[requests]``.

    ``uniform``; ``bimodal``: one in eight is 16 times as long as the others; ``lognormal`` with sigma 1; ``one-long``:
    one has half of the tokens. None where a length would be below 1 or above ``longest``, or the pattern needs more
    requests.
    """
    if requests > total_tokens:
        return None
    if pattern != "uniform" and requests < (_LONG_SHARE if pattern == "bimodal" else 2):
        return None
    # The same shuffle and the same lognormal draws for every total, so that totals differ in scale alone.
    rng = np.random.default_rng([seed, requests])
    weights = np.ones(requests)
    if pattern == "bimodal":
        weights[: requests // _LONG_SHARE] = _LONG_TIMES
    elif pattern == "lognormal":
        weights = rng.lognormal(0.0, _SIGMA, requests)
    elif pattern == "one-long":
        weights[0] = requests - 1
    shuffled = rng.permutation(weights)
    lengths = _rounded((shuffled / shuffled.sum() * total_tokens).tolist())
    return lengths if min(lengths) >= 1 and max(lengths) <= longest else None


def _rounded(lengths: list[float]) -> tuple[int, ...]:
    """Whole numbers of the same sum: each cumulative sum is rounded."""
    ends = [round(end) for end in accumulate(lengths)]
    return tuple(end - start for start, end in zip([0, *ends], ends, strict=False))
