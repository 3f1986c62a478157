"""Distributions of token counts, each given by its quantile function.

``quantile`` maps probabilities to tokens, so that one uniform draw per request decides its length and a copula can
couple prompt and output lengths; ``cdf`` is what mixtures and truncation are made of. Both work on arrays of any one
shape, and tokens are real numbers here: whoever draws rounds them, to at least one token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import numpy as np

from l4sim.workload.synth.checks import require
from l4sim.workload.trace import FloatArray

_BISECTIONS = 64


class Lengths(Protocol):
    """A distribution of token counts."""

    def quantile(self, u: FloatArray) -> FloatArray:
        """Tokens below which a share ``u`` of requests stays, float64; ``u`` in (0, 1), the same shape."""
        ...

    def cdf(self, tokens: FloatArray) -> FloatArray:
        """Share of requests with at most so many tokens, in [0, 1]; the same shape."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """Every request has the same number of tokens."""

    tokens: float

    def __post_init__(self) -> None:
        require(1 <= self.tokens < math.inf, f"fixed lengths: tokens must be >= 1, not {self.tokens}")

    def quantile(self, u: FloatArray) -> FloatArray:
        """See ``Lengths``."""
        return np.full(np.shape(u), float(self.tokens))

    def cdf(self, tokens: FloatArray) -> FloatArray:
        """See ``Lengths``."""
        return np.where(tokens >= self.tokens, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every whole number from ``low`` to ``high`` tokens is as likely as any other."""

    low: float
    high: float

    def __post_init__(self) -> None:
        for name, tokens in (("low", self.low), ("high", self.high)):
            require(
                1 <= tokens < math.inf and tokens == int(tokens),
                f"uniform lengths: {name} must be a whole number >= 1, not {tokens}",
            )
        require(self.low <= self.high, f"uniform lengths: low must be at most high, not {self.low} and {self.high}")

    def quantile(self, u: FloatArray) -> FloatArray:
        """See ``Lengths``."""
        return np.minimum(self.low + np.floor(u * (self.high - self.low + 1)), self.high)

    def cdf(self, tokens: FloatArray) -> FloatArray:
        """See ``Lengths``."""
        return np.clip((np.floor(tokens) - self.low + 1) / (self.high - self.low + 1), 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Lognormal:
    """ln(tokens) is normal."""

    mu: float
    """Mean of ln(tokens): the median is exp(mu) tokens."""
    sigma: float
    """Standard deviation of ln(tokens)."""

    def __post_init__(self) -> None:
        require(math.isfinite(self.mu), f"lognormal lengths: mu must be a finite number, not {self.mu}")
        require(0 < self.sigma < math.inf, f"lognormal lengths: sigma must be a number > 0, not {self.sigma}")

    def quantile(self, u: FloatArray) -> FloatArray:
        """See ``Lengths``."""
        from scipy.special import ndtri

        return np.asarray(np.exp(self.mu + self.sigma * ndtri(u)))

    def cdf(self, tokens: FloatArray) -> FloatArray:
        """See ``Lengths``."""
        from scipy.special import ndtr

        with np.errstate(divide="ignore"):
            return np.asarray(ndtr((np.log(np.maximum(tokens, 0)) - self.mu) / self.sigma))


@dataclass(frozen=True, slots=True)
class LognormalPareto:
    """A lognormal body whose largest ``tail_share`` is replaced by a Pareto tail from where the body is cut.

    ServeGen (Xiang et al., arXiv 2505.09999) fits production prompts by a lognormal with a Pareto tail; that the two
    meet at one threshold, with a continuous CDF, is ours.
    """

    mu: float
    sigma: float
    tail_share: float
    """Share of requests in the tail, in (0, 1)."""
    alpha: float
    """Tail index: P(tokens > x) falls as x**-alpha; the mean is finite for alpha > 1."""

    def __post_init__(self) -> None:
        Lognormal(self.mu, self.sigma)
        require(
            0 < self.tail_share < 1, f"lognormal-pareto lengths: tail_share must be in (0, 1), not {self.tail_share}"
        )
        require(0 < self.alpha < math.inf, f"lognormal-pareto lengths: alpha must be a number > 0, not {self.alpha}")

    @property
    def tail_tokens(self) -> float:
        """Where the tail begins."""
        return float(Lognormal(self.mu, self.sigma).quantile(np.array(1 - self.tail_share)))

    def quantile(self, u: FloatArray) -> FloatArray:
        """See ``Lengths``."""
        body = Lognormal(self.mu, self.sigma).quantile(u)
        tail = self.tail_tokens * (np.maximum((1 - u) / self.tail_share, 1e-300)) ** (-1 / self.alpha)
        return np.where(u <= 1 - self.tail_share, body, tail)

    def cdf(self, tokens: FloatArray) -> FloatArray:
        """See ``Lengths``."""
        body = Lognormal(self.mu, self.sigma).cdf(tokens)
        beyond = np.maximum(tokens / self.tail_tokens, 1.0)
        return np.where(tokens <= self.tail_tokens, body, 1 - self.tail_share * beyond**-self.alpha)


@dataclass(frozen=True, slots=True)
class Zipf:
    """P(k tokens) falls as k**-exponent, for k = 1 ... max_tokens."""

    exponent: float
    max_tokens: int

    def __post_init__(self) -> None:
        require(0 <= self.exponent < math.inf, f"zipf lengths: exponent must be a number >= 0, not {self.exponent}")
        require(
            1 <= self.max_tokens <= 10_000_000 and self.max_tokens == int(self.max_tokens),
            f"zipf lengths: max_tokens must be an integer from 1 to 10000000, not {self.max_tokens}",
        )

    def quantile(self, u: FloatArray) -> FloatArray:
        """See ``Lengths``."""
        rank = np.searchsorted(_zipf_cdf(self.exponent, int(self.max_tokens))[:-1], u, side="left")
        return np.asarray(rank + 1.0, dtype=np.float64)

    def cdf(self, tokens: FloatArray) -> FloatArray:
        """See ``Lengths``."""
        table = np.append(0.0, _zipf_cdf(self.exponent, int(self.max_tokens)))
        return np.asarray(table[np.clip(np.floor(tokens), 0, self.max_tokens).astype(np.int64)])


@dataclass(frozen=True, slots=True)
class QuantileTable:
    """A published table of percentiles; between its points the inverse CDF is linear."""

    probabilities: tuple[float, ...]
    """Strictly ascending, from 0 to 1."""
    tokens: tuple[float, ...]
    """Of the same length, not descending, >= 1."""

    def __post_init__(self) -> None:
        p, tokens = self.probabilities, self.tokens
        require(
            len(p) == len(tokens) >= 2,
            f"quantile table: {len(p)} probabilities for {len(tokens)} token counts, need >= 2",
        )
        require(
            p[0] == 0 and p[-1] == 1 and all(a < b for a, b in pairwise(p)),
            f"quantile table: probabilities must ascend from 0 to 1, not {list(p)}",
        )
        require(
            tokens[0] >= 1 and tokens[-1] < math.inf and all(a <= b for a, b in pairwise(tokens)),
            f"quantile table: tokens must be >= 1 and must not descend, not {list(tokens)}",
        )

    def quantile(self, u: FloatArray) -> FloatArray:
        """See ``Lengths``."""
        return np.interp(u, self.probabilities, self.tokens)

    def cdf(self, tokens: FloatArray) -> FloatArray:
        """See ``Lengths``."""
        p, table = np.array(self.probabilities), np.array(self.tokens)
        upper = np.minimum(np.searchsorted(table, tokens, side="right"), len(table) - 1)
        lower = np.maximum(upper - 1, 0)
        span = np.maximum(table[upper] - table[lower], np.finfo(np.float64).tiny)
        inside = p[lower] + (p[upper] - p[lower]) * np.clip((tokens - table[lower]) / span, 0, 1)
        return np.where(tokens < table[0], 0.0, np.where(tokens >= table[-1], 1.0, inside))


@dataclass(frozen=True, slots=True)
class Mixture:
    """Each request comes from one of several distributions."""

    parts: tuple[Lengths, ...]
    weights: tuple[float, ...]
    """Of the same length, > 0; they are divided by their sum."""

    def __post_init__(self) -> None:
        require(
            len(self.parts) == len(self.weights) >= 1,
            f"mixture: {len(self.parts)} distributions for {len(self.weights)} weights",
        )
        require(
            all(0 < weight < math.inf for weight in self.weights),
            f"mixture: weights must be numbers > 0, not {list(self.weights)}",
        )

    def quantile(self, u: FloatArray) -> FloatArray:
        """See ``Lengths``. By bisection between the parts' own quantiles, which enclose the mixture's."""
        quantiles = np.stack([part.quantile(u) for part in self.parts])
        low, high = quantiles.min(axis=0), quantiles.max(axis=0)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            enough = self.cdf(middle) >= u
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return np.asarray(high)

    def cdf(self, tokens: FloatArray) -> FloatArray:
        """See ``Lengths``."""
        weighted = [weight * part.cdf(tokens) for weight, part in zip(self.weights, self.parts, strict=True)]
        return np.asarray(sum(weighted) / sum(self.weights))


@dataclass(frozen=True, slots=True)
class Truncated:
    """A distribution given that it stays at or below ``max_tokens``: longer draws are drawn again."""

    of: Lengths
    max_tokens: float

    def __post_init__(self) -> None:
        require(1 <= self.max_tokens < math.inf, f"truncated lengths: max must be >= 1 token, not {self.max_tokens}")
        require(
            float(self.of.cdf(np.array(self.max_tokens))) > 0,
            f"truncated lengths: no request has at most max = {self.max_tokens} tokens",
        )

    def quantile(self, u: FloatArray) -> FloatArray:
        """See ``Lengths``."""
        kept = float(self.of.cdf(np.array(self.max_tokens)))
        return np.minimum(self.of.quantile(u * kept), self.max_tokens)

    def cdf(self, tokens: FloatArray) -> FloatArray:
        """See ``Lengths``."""
        kept = float(self.of.cdf(np.array(self.max_tokens)))
        return np.minimum(self.of.cdf(tokens) / kept, 1.0)


@lru_cache(maxsize=8)
def _zipf_cdf(exponent: float, max_tokens: int) -> FloatArray:
    weights = np.arange(1, max_tokens + 1, dtype=np.float64) ** -exponent
    cumulative = weights.cumsum()
    return np.asarray(cumulative / cumulative[-1])
