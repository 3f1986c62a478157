"""What unequal lengths cost, as predicted: a batch's time over that of equal lengths with as many tokens in all."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from l4sim.batch import Batch
from l4sim.cost.attention import build_attention
from l4sim.cost.profile import Profile, ProfiledKernel
from l4sim.specs.model import Model, uniform_layers

BATCHES = (8, 32, 64, 128, 256)
MEAN_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Skew:
    """A way to share out tokens among the requests of a batch."""

    name: str
    """For people: what the batch looks like."""

    def contexts(self, batch: int, mean_tokens: int) -> NDArray[np.int64]:
        """Context lengths of ``batch`` requests that sum to ``batch * mean_tokens``, to within rounding."""
        raise NotImplementedError


class _TwoLengths(Skew):
    """A quarter of the requests has most of the tokens."""

    def contexts(self, batch: int, mean_tokens: int) -> NDArray[np.int64]:
        lengths = np.full(batch, mean_tokens * 2 // 5)
        lengths[::4] = mean_tokens * 14 // 5
        return lengths


class _Lognormal(Skew):
    """Quantiles of a lognormal with sigma 1, in no order of length."""

    def contexts(self, batch: int, mean_tokens: int) -> NDArray[np.int64]:
        from scipy.special import ndtri

        weights = np.exp(ndtri((np.arange(batch) + 0.5) / batch))
        order = np.random.default_rng(0).permutation(batch)
        lengths: NDArray[np.int64] = np.maximum(weights / weights.sum() * batch * mean_tokens, 1).astype(np.int64)
        return lengths[order]


class _OneLong(Skew):
    """One request, the last in the batch, has half of all tokens."""

    def contexts(self, batch: int, mean_tokens: int) -> NDArray[np.int64]:
        lengths = np.full(batch, max(batch * mean_tokens // 2 // (batch - 1), 1))
        lengths[-1] = batch * mean_tokens // 2
        return lengths


SKEWS = (_TwoLengths("two lengths, 1 : 7"), _Lognormal("lognormal, sigma 1"), _OneLong("one has half"))


@dataclass(frozen=True, slots=True)
class Penalty:
    """One cell of the table."""

    kernel: str
    basis: str
    """What the ratio rests on."""
    skew: str
    batch: int
    ratio: float
    """Time over that of equal lengths; 1 where the kernel does not mind."""


def penalties(profile: Profile, model: Model, *, tensor_parallel: int = 1) -> list[Penalty]:
    """The penalty of every kernel of the profile, for `SKEWS` and `BATCHES` of `MEAN_TOKENS` on average: ``tile``."""
    shape = asdict(uniform_layers(model).attention.of_rank(tensor_parallel))
    cells = []
    for name, kernel in profile.kernels.items():
        attention = build_attention(
            name,
            kernel.coefficients,
            **shape,
            sms=profile.gpu.sms,
        )
        for skew in SKEWS:
            for batch in BATCHES:
                uneven = skew.contexts(batch, MEAN_TOKENS)
                even = np.full(batch, round(uneven.sum() / batch))
                ratio = attention.attention_s(_decodes(uneven)) / attention.attention_s(_decodes(even))
                cells.append(Penalty(name, _basis(kernel), skew.name, batch, ratio))
    return cells


def _basis(kernel: ProfiledKernel) -> str:
    if not kernel.errors:
        return "not measured: the kernel's split, speeds scaled or assumed"
    if "skew" in kernel.errors or "heterogeneous" in kernel.errors:
        return "fitted to batches of equal and of unequal lengths"
    return "fitted to batches of equal lengths; what unequal ones cost is predicted from the kernel's split"


def _decodes(contexts: NDArray[np.int64]) -> Batch:
    return Batch(contexts, int(contexts.sum()))
