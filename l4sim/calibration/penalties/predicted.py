"""What unequal lengths cost, as predicted: a batch's time over that of equal lengths with as many tokens in all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l4sim.batch import Batch
from l4sim.cost.attention.kinds import attention_part
from l4sim.cost.attention.part import AttentionSetting
from l4sim.cost.profile import Profile, ProfiledKernel
from l4sim.errors import InputError
from l4sim.specs.attention import GroupedQuery, Latent, VariedQuery
from l4sim.specs.dtypes import Dtypes
from l4sim.specs.layers import Attention
from l4sim.specs.matrix import Absent
from l4sim.specs.model import Model

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

    layers: str
    """The kind of attention, with its heads where a model has several of a kind."""
    kernel: str
    basis: str
    """What the ratio rests on."""
    skew: str
    batch: int
    ratio: float
    """Time over that of equal lengths; 1 where the kernel does not mind."""


def penalties(profile: Profile, model: Model, *, tensor_parallel: int = 1) -> list[Penalty]:
    """The penalty of every kernel of the profile, for `SKEWS` and `BATCHES` of `MEAN_TOKENS` on average: ``tile``.

    By kind of layers where a model has several; all kernels run grouped-query attention, the default one the others.

    Raises:
        InputError: a kind of layers that the profile has no seconds of.
    """
    kinds = dict(_kinds(model, tensor_parallel))
    cells = []
    for name, kernel in profile.kernels.items():
        setting = AttentionSetting(profile, model.hidden, tensor_parallel, name)
        for attention, dtypes in kinds.items():
            grouped = isinstance(attention, GroupedQuery | VariedQuery)
            if not grouped and name != profile.default_kernel:
                continue
            try:
                attention_s = attention_part(setting, attention, dtypes).model.attention_s
            except InputError:
                # One that is beside the default may not run heads of these sizes.
                if name == profile.default_kernel:
                    raise
                continue
            basis = _basis(kernel) if grouped else _BASIS_OF_OTHERS[isinstance(attention, Latent)]
            if isinstance(attention, Latent) and (attention.indexer is not None or attention.shared_index):
                basis = _BASIS_OF_SPARSE
            for skew in SKEWS:
                for batch in BATCHES:
                    uneven = skew.contexts(batch, MEAN_TOKENS)
                    even = np.full(batch, round(uneven.sum() / batch))
                    ratio = attention_s(_decodes(uneven)) / attention_s(_decodes(even))
                    cells.append(Penalty(_name(attention, kinds), name, basis, skew.name, batch, ratio))
    return cells


def _kinds(model: Model, tensor_parallel: int) -> Iterator[tuple[Attention, Dtypes]]:
    """One rank's kinds of attention, in the order of layers."""
    for group in model.groups:
        if not isinstance(group.attention, Absent):
            yield group.attention.of_rank(tensor_parallel), group.dtypes


def _name(attention: Attention, kinds: Mapping[Attention, Dtypes]) -> str:
    if sum(other.kind == attention.kind for other in kinds) == 1:
        return attention.kind
    sizes = {label: getattr(attention, field, 0) for field, label in _SIZES.items()}
    return f"{attention.kind} ({', '.join(f'{size} {label}' for label, size in sizes.items() if size)})"


_SIZES = {"heads": "heads", "kv_heads": "KV heads", "head_dim": "wide", "window_tokens": "tokens of window"}


_BASIS_OF_OTHERS: Mapping[bool, str] = {
    True: "measured for equal lengths; what unequal ones cost is predicted, as if the kernel split them as it splits "
    "grouped-query attention",
    False: "states are of a fixed size: lengths make no difference",
}
"""By whether attention is latent, or else linear."""
_BASIS_OF_SPARSE = "measured for equal lengths; unequal ones are taken to cost what as many of their mean cost"


def _basis(kernel: ProfiledKernel) -> str:
    if not kernel.errors:
        return "not measured: the kernel's split, speeds scaled or assumed"
    if "skew" in kernel.errors or "heterogeneous" in kernel.errors:
        return "fitted to batches of equal and of unequal lengths"
    return "fitted to batches of equal lengths; what unequal ones cost is predicted from the kernel's split"


def _decodes(contexts: NDArray[np.int64]) -> Batch:
    return Batch(contexts, int(contexts.sum()))
