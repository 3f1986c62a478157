"""Seconds of a mixture's routed experts from a table, and by a stated rule where it has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from l4sim.cost.tables.products import Seconds
from l4sim.cost.tables.table import FloatArray, IntArray, OperatorTable
from l4sim.errors import InputError
from l4sim.specs.dtypes import size_bytes
from l4sim.specs.gpu import GPU

EXPERTS = "experts"
"""The table's name: kinds ``dtype, distribution``, sizes as `Mixture` has them, over the ``tokens`` of all ranks."""

BALANCED = "balanced"
"""Every expert gets as many tokens as any other."""
UNIFORM = "uniform"
"""Every choice is as likely, and made by chance: not in tables, but made of balanced rows (`Mixtures.seconds`)."""

# Formats of experts' weights, and the rows that stand for them: the first is what they are, others are scaled from.
# 4-bit weights are multiplied in 16 bits where engines do so by default (gpt-oss: vLLM, `get_mxfp4_backend`).
_ROWS: Mapping[str, tuple[str, ...]] = {
    "bfloat16": ("bfloat16",),
    "float16": ("bfloat16",),
    "fp8": ("fp8", "fp8_block", "bfloat16"),
    "fp8-block128": ("fp8_block", "fp8", "bfloat16"),
    "fp8-block32": ("", "fp8_block", "fp8", "bfloat16"),
    "mxfp8": ("", "fp8_block", "fp8", "bfloat16"),
    "nvfp4": ("nvfp4", "w4a16_mxfp4", "int4_wo", "bfloat16"),
    "mxfp4": ("w4a16_mxfp4", "w4a8_mxfp4_mxfp8", "nvfp4", "int4_wo", "bfloat16"),
    "int8": ("", "fp8", "fp8_block", "bfloat16"),
    "int4": ("int4_wo", "w4a16_mxfp4", "bfloat16"),
    "int4-g32": ("int4_wo", "w4a16_mxfp4", "bfloat16"),
    "int4-g64": ("int4_wo", "w4a16_mxfp4", "bfloat16"),
    "int4-g128": ("int4_wo", "w4a16_mxfp4", "bfloat16"),
}


class _Arithmetic(NamedTuple):
    """How a table's rows of one format are stored and multiplied."""

    weights: str
    """As `l4sim.specs.dtypes` calls it."""
    rate: str
    """The field of `GPU` that has the peak."""


_ARITHMETIC = {
    "bfloat16": _Arithmetic("bfloat16", "bf16_flops"),
    "fp8": _Arithmetic("fp8", "fp8_flops"),
    "fp8_block": _Arithmetic("fp8-block128", "fp8_flops"),
    "nvfp4": _Arithmetic("nvfp4", "fp4_flops"),
    "w4a16_mxfp4": _Arithmetic("mxfp4", "bf16_flops"),
    "w4a8_mxfp4_mxfp8": _Arithmetic("mxfp4", "fp8_flops"),
    "int4_wo": _Arithmetic("int4-g32", "bf16_flops"),
}


class Mixture(NamedTuple):
    """A mixture of experts and how ranks share it."""

    hidden: int
    intermediate: int
    """Of one expert, over all ranks."""
    per_token: int
    experts: int
    moe_tp: int
    """Ranks that share each expert."""
    moe_ep: int
    """Groups of ranks that hold different experts."""
    distribution: str
    """How uneven the experts' shares of tokens are: ``balanced``, ``uniform``, or by a power law ``power_law_1.01``."""


_SIZES = ("hidden", "intermediate", "per_token", "experts", "moe_tp", "moe_ep")


def _mixture(sizes: Sequence[int], distribution: str) -> Mixture:
    hidden, intermediate, per_token, experts, moe_tp, moe_ep = sizes
    return Mixture(hidden, intermediate, per_token, experts, moe_tp, moe_ep, distribution)


class Mixtures:
    """What a table tells of experts of any sizes and format."""

    def __init__(self, table: OperatorTable, gpu: GPU) -> None:
        self._table, self._gpu = table, gpu
        self.dtypes = frozenset(map(str, np.unique(table.kinds["dtype"])))
        columns = zip(*(table.sizes[name].tolist() for name in _SIZES), strict=True)
        texts = zip(table.kinds["dtype"].tolist(), table.kinds["distribution"].tolist(), strict=True)
        self._row = {
            (dtype, _mixture(sizes, distribution)): row
            for row, ((dtype, distribution), sizes) in enumerate(zip(texts, columns, strict=True))
        }
        self._logs = np.log2(np.stack([table.sizes[name] for name in _SIZES], axis=1))

    def shape_of(self, table: OperatorTable, row: int) -> Mixture:
        """One row of a table as a mixture."""
        return _mixture([int(table.sizes[name][row]) for name in _SIZES], str(table.kinds["distribution"][row]))

    def seconds(self, weights: str, mixture: Mixture, tokens: IntArray) -> Seconds:
        """Seconds of the experts of the slowest rank by the tokens of all ranks together, of the shape of ``tokens``.

        Where choices are made by chance (``uniform``), fewer experts are hit than by as many balanced ones, and so
        fewer weights are read: it takes what balanced tokens take that hit as many, and what more tokens than hit all
        of them take more. Of several groups of ranks the one counts that has most. Source: ours; held against layers
        that were timed by tokens and activated experts (tests/cost/tables).

        What was not measured is the nearest mixture of that format, by the octaves between their sizes, times the
        ratio of what both take at the GPU's peaks; of formats without rows, another's in the same way.

        Raises:
            InputError: a format of weights that nothing stands for.
        """
        if mixture.distribution != UNIFORM:
            return self._looked_up(weights, mixture, np.asarray(tokens, dtype=np.float64))
        hit, most = uniform_choices(mixture, np.asarray(tokens, dtype=np.float64))
        all_hit = np.float64(mixture.experts / mixture.per_token)
        at = np.concatenate([hit, np.maximum(most, all_hit), [all_hit]])
        found = self._looked_up(weights, mixture._replace(distribution=BALANCED), at)
        by_hits, by_tokens, whole = found.seconds[: len(hit)], found.seconds[len(hit) : -1], found.seconds[-1]
        return Seconds(by_hits + by_tokens - whole, found.measured)

    def _looked_up(self, weights: str, mixture: Mixture, tokens: FloatArray) -> Seconds:
        known = _ROWS.get(weights, ())
        dtype = next((each for each in known if each in self.dtypes), None)
        if dtype is None:
            raise InputError(f"no seconds of experts in {weights}: accepted are {', '.join(_ROWS)}")
        found = self.of_dtype(dtype, mixture, tokens)
        if dtype == known[0] or _ARITHMETIC[dtype].weights == weights:
            return found
        own = next((_ARITHMETIC[each] for each in known if each in _ARITHMETIC), _ARITHMETIC[dtype])
        ratio = self._least_s(own._replace(weights=weights), mixture, tokens) / self._least_s(
            _ARITHMETIC[dtype], mixture, tokens
        )
        return Seconds(found.seconds * ratio, False)

    def of_dtype(self, dtype: str, mixture: Mixture, tokens: ArrayLike) -> Seconds:
        """The same of rows of one format."""
        row = self._row.get((dtype, mixture))
        if row is not None:
            return Seconds(self._table.along(row, tokens), True)
        row = self._nearest(dtype, mixture)
        near = self.shape_of(self._table, row)
        ratio = self._least_s(_ARITHMETIC[dtype], mixture, tokens) / self._least_s(_ARITHMETIC[dtype], near, tokens)
        return Seconds(self._table.along(row, tokens) * ratio, False)

    def _nearest(self, dtype: str, mixture: Mixture) -> int:
        octaves = np.abs(self._logs - np.log2(mixture[: len(_SIZES)])).sum(axis=1)
        # Another distribution is a smaller change than another size.
        octaves = octaves + 0.1 * (self._table.kinds["distribution"] != mixture.distribution)
        return int(np.argmin(np.where(self._table.kinds["dtype"] == dtype, octaves, np.inf)))

    def _least_s(self, arithmetic: _Arithmetic, mixture: Mixture, tokens: ArrayLike) -> FloatArray:
        """What a mean rank takes at the GPU's peaks: the weights of the experts that are hit, or their products."""
        count = np.asarray(tokens, dtype=np.float64)
        hit = hit_experts(mixture, count) / mixture.moe_ep
        one = 3 * mixture.hidden * mixture.intermediate / mixture.moe_tp
        flops = 2 * one * count * mixture.per_token / mixture.moe_ep
        read = hit * one * size_bytes(1 << 20, arithmetic.weights) / (1 << 20)
        rate = getattr(self._gpu, arithmetic.rate) or self._gpu.bf16_flops
        launch_s = 2e-6
        return np.asarray(launch_s + np.maximum(read / self._gpu.memory_bytes_per_s, flops / rate))


def hit_experts(mixture: Mixture, tokens: FloatArray) -> FloatArray:
    """How many experts some token goes to, of the shape of ``tokens``, were every choice as likely."""
    return np.asarray(mixture.experts * (1 - (1 - mixture.per_token / mixture.experts) ** tokens))


def uniform_choices(mixture: Mixture, tokens: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Balanced tokens that hit as many experts, and that make as much work, as those chosen by chance do.

    Both are of the shape of ``tokens``, and of the group of ranks that has most of either: of so many groups its mean
    and the expected largest of as many normal deviates (Blom, 1958).
    """
    groups = mixture.moe_ep
    beyond = float(norm.ppf((groups - 0.375) / (groups + 0.25))) if groups > 1 else 0.0
    own = mixture.experts / groups
    share = hit_experts(mixture, tokens) / mixture.experts
    hit = np.minimum(own, own * share + beyond * np.sqrt(own * share * (1 - share)))
    chosen = tokens * mixture.per_token / groups
    most = chosen + beyond * np.sqrt(chosen * (1 - 1 / groups))
    return hit * groups / mixture.per_token, np.asarray(most * groups / mixture.per_token)


@lru_cache(maxsize=16)
def mixtures_of(table: OperatorTable, gpu: GPU) -> Mixtures:
    """The mixtures that a table tells of, made once."""
    return Mixtures(table, gpu)
