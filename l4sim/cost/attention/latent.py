"""Seconds of multi-head latent attention, plain and sparse, by tables of batches of equal lengths.

A token's keys and values are one vector for all heads, so that decodes read it once and prompts multiply as with heads
of their own. Tables are of whole modules with their projections (vLLM), or of the kernels alone (SGLang).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from l4sim.batch import Batch
from l4sim.cost.attention import tile_attention
from l4sim.cost.attention.part import AttentionPart, AttentionSetting
from l4sim.cost.attention.shape import Shape
from l4sim.cost.model import AttentionModel
from l4sim.cost.tables.products import GEMM, products_of
from l4sim.cost.tables.surface import Surface, surface_of
from l4sim.cost.tables.table import FloatArray, OperatorTable
from l4sim.errors import InputError
from l4sim.specs.attention import Latent
from l4sim.specs.dtypes import Dtypes

PREFILL_MODULE, DECODE_MODULE = "latent_prefill_module", "latent_decode_module"
PREFILL, DECODE = "latent_prefill", "latent_decode"
SPARSE_PREFILL, SPARSE_DECODE = "sparse_prefill", "sparse_decode"
BMM = "latent_bmm"

_PROJECTIONS = frozenset({"query", "query_down", "query_up", "latent", "latent_up", "gate", "output"})
_INDEXER = frozenset({"index_query", "index_key", "index_weights"})
_LEAST_S = 1e-7


@dataclass(frozen=True, slots=True)
class Prompts:
    """Seconds of prompts: as measured of equal ones, and by what they are made of where they are others.

    What they are made of is what each token takes, and each pair of a token and one that it sees.
    """

    equal: Surface
    tokens: tuple[float, ...]
    tokens_s: tuple[float, ...]
    """By tokens in the batch, linear between."""
    pair_s: float

    def at(self, prompts: int, tokens: int, pairs: float, beside_tokens: int = 0) -> float:
        """Seconds of so many prompts with so many tokens that see so many pairs, and of tokens that are beside them."""
        mean = tokens / prompts
        made_s = self._made_s(tokens + beside_tokens, pairs)
        return self.equal.at(prompts, mean) * made_s / self._made_s(tokens, tokens * mean / 2)

    def _made_s(self, tokens: int, pairs: float) -> float:
        beyond = max(1.0, tokens / self.tokens[-1])
        return float(np.interp(tokens, self.tokens, self.tokens_s)) * beyond + self.pair_s * pairs


def prompts_of(table: OperatorTable, row: int) -> Prompts:
    """A row of a table of equal prompts, and what they are made of.

    Batches of as many tokens differ in their pairs, ``batch * length**2 / 2``: their differences tell what a pair
    takes, and what is left what tokens take. Source: ours.
    """
    batch, length = np.meshgrid(table.axes["batch"], table.axes["length"], indexing="ij")
    known = np.isfinite(table.seconds[row])
    tokens, pairs = (batch * length)[known].astype(float), (batch * length**2 / 2)[known].astype(float)
    seconds = table.seconds[row][known]
    pair_s = _pair_s(tokens, pairs, seconds)
    points = np.unique(tokens)
    left = [float(np.median((seconds - pair_s * pairs)[tokens == each])) for each in points]
    tokens_s = np.maximum.accumulate(np.maximum(left, _LEAST_S))
    return Prompts(surface_of(table, [row]), tuple(map(float, points)), tuple(map(float, tokens_s)), pair_s)


def _pair_s(tokens: FloatArray, pairs: FloatArray, seconds: FloatArray) -> float:
    """Seconds of a pair by least squares over batches of as many tokens, the longest of which weigh most."""
    above = below = 0.0
    for each in np.unique(tokens):
        same = tokens == each
        if same.sum() > 1:
            x, y = pairs[same] - pairs[same].mean(), seconds[same] - seconds[same].mean()
            above += float(x @ y)
            below += float(x @ x)
    return max(above / below, 0.0) if below else 0.0


def pairs_of(batch: Batch) -> float:
    """Pairs of a prompt's token and one that it sees, over all prompts."""
    return sum([chunk.chunk_tokens * (chunk.cached_tokens + chunk.chunk_tokens / 2) for chunk in batch.prefills])


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """An ``AttentionModel`` of latent attention.

    Decodes take what a uniform batch of their number and mean length takes, and of what lengths add to it as much more
    as the kernel's own split of the batch takes more than that of the uniform one. Of prompts all rows are busy
    whatever their lengths: tokens and pairs count.
    """

    decodes: Surface
    prompts: Prompts
    tile: AttentionModel | None
    """The kernel's split, which sees unequal lengths; None: they make no difference."""
    up_s: tuple[float, ...] = ()
    """By tokens of prompts from 0: making keys and values of latent vectors, where no table has it in."""
    absorbed_s: tuple[float, ...] = ()
    """By decoding requests from 0: taking queries to latent vectors, and these to values, where no table has it in."""
    projected: bool = True
    """Whether projections are in the tables."""

    def attention_s(self, batch: Batch) -> float:
        """Seconds of one layer."""
        count = len(batch.decode_context_tokens)
        prompt_tokens = sum([chunk.chunk_tokens for chunk in batch.prefills])
        seconds = 0.0
        if count:
            mean = batch.decode_context_sum / count
            least = self.decodes.at(count, self.decodes.length[0])
            grown = self.decodes.at(count, mean) - least
            seconds = grown * self._unevenness(batch, mean)
            if self.absorbed_s:
                seconds += self.absorbed_s[min(count, len(self.absorbed_s) - 1)]
            if not (self.projected and prompt_tokens):
                # Beside prompts the projections of both are one product.
                seconds += least
        if prompt_tokens:
            beside = count if self.projected else 0
            seconds += self.prompts.at(len(batch.prefills), prompt_tokens, pairs_of(batch), beside)
            if self.up_s:
                seen = prompt_tokens + sum([chunk.cached_tokens for chunk in batch.prefills])
                most = len(self.up_s) - 1
                seconds += self.up_s[min(seen, most)] * max(1.0, seen / most)
        return seconds

    def _unevenness(self, batch: Batch, mean: float) -> float:
        if self.tile is None:
            return 1.0
        contexts = batch.decode_context_tokens
        uniform = Batch(np.full(len(contexts), round(mean), dtype=np.int64), round(mean) * len(contexts))
        alone = Batch(contexts, batch.decode_context_sum)
        return self.tile.attention_s(alone) / self.tile.attention_s(uniform)


def latent(setting: AttentionSetting, attention: Latent, dtypes: Dtypes) -> AttentionPart:
    """Latent attention by the profile's tables, those of sparse layers where an indexer chooses.

    Raises:
        InputError: the profile has no such table.
    """
    if attention.indexer is not None or attention.shared_index:
        return _sparse(setting, attention, dtypes)
    tables = setting.profile.tables
    if DECODE_MODULE in tables:
        return _module(setting, attention, dtypes)
    if DECODE in tables and PREFILL in tables:
        return _kernels(setting, attention, dtypes)
    raise InputError(f"profile {setting.profile.name} has no seconds of {attention.kind}")


def _module(setting: AttentionSetting, attention: Latent, dtypes: Dtypes) -> AttentionPart:
    tables = setting.profile.tables
    found = [
        _row(tables[name], attention.heads, dtypes, dtypes.of("query_up" if attention.query_rank else "query"))
        for name in (DECODE_MODULE, PREFILL_MODULE)
    ]
    (decode, one), (prefill, other) = found
    model = LatentAttention(
        surface_of(tables[DECODE_MODULE], [decode]),
        prompts_of(tables[PREFILL_MODULE], prefill),
        _tile(setting, attention),
    )
    return AttentionPart(model, _PROJECTIONS, measured=one and other and _published(attention))


def _kernels(setting: AttentionSetting, attention: Latent, dtypes: Dtypes) -> AttentionPart:
    tables = setting.profile.tables
    decode, one = _row(tables[DECODE], attention.heads, dtypes, None)
    prefill, other = _row(tables[PREFILL], attention.heads, dtypes, None)
    requests = np.arange(1, 4097)
    table = tables[BMM]
    bmm = [_nearest(table.rows(table.kinds["op"] == op), attention.heads) for op in np.unique(table.kinds["op"])]
    absorbed_s = np.sum([rows.along(row, requests) for rows, row in bmm], axis=0)
    up = attention.heads * (attention.nope_dim + attention.value_dim)
    products = products_of(tables[GEMM], setting.profile.gpu)
    up_s = products.seconds(dtypes.of("latent_up"), up, attention.kv_rank, np.arange(1, 16385)).seconds
    model = LatentAttention(
        surface_of(tables[DECODE], [decode]),
        prompts_of(tables[PREFILL], prefill),
        _tile(setting, attention),
        up_s=(0.0, *map(float, up_s)),
        absorbed_s=(0.0, *map(float, absorbed_s)),
        projected=False,
    )
    return AttentionPart(model, frozenset({"latent_up"}), measured=one and other and _published(attention))


def _published(attention: Latent) -> bool:
    """Whether its sizes are those that tables were measured for (DeepSeek-V2's)."""
    return (attention.kv_rank, attention.rope_dim, attention.nope_dim, attention.value_dim) == (512, 64, 128, 128)


def _tile(setting: AttentionSetting, attention: Latent) -> AttentionModel | None:
    """How the kernel splits decodes over the GPU: one KV head, whose latent vector is keys and values."""
    if setting.attention_model != "tile":
        return None
    width = (attention.kv_rank + attention.rope_dim) // 2
    profile = setting.profile
    coefficients = profile.kernels[setting.kernel].coefficients
    return tile_attention(setting.kernel, coefficients, Shape(attention.heads, 1, width, profile.gpu.sms))


_GEMM_DTYPES = {"fp8-block128": "fp8_block", "fp8": "fp8_block", "nvfp4": "nvfp4"}


def _row(table: OperatorTable, heads: int, dtypes: Dtypes, weights: str | None) -> tuple[int, bool]:
    """The row of the KV's and the weights' formats that is nearest in heads, and whether it has all of them."""
    wanted = {"kv_dtype": "fp8" if dtypes.kv == "fp8" else "bfloat16"}
    if weights is not None:
        wanted["gemm_dtype"] = _GEMM_DTYPES.get(weights, "bfloat16")
    same = [table.kinds[name] == value for name, value in wanted.items()]
    missed = np.sum([~each for each in same], axis=0)
    octaves = np.abs(np.log2(table.sizes["heads"]) - np.log2(heads))
    row = int(np.lexsort((octaves, missed))[0])
    return row, bool(missed[row] == 0 and octaves[row] == 0)


def _nearest(table: OperatorTable, heads: int) -> tuple[OperatorTable, int]:
    return table, int(np.argmin(np.abs(np.log2(table.sizes["heads"]) - np.log2(heads))))


def _sparse(setting: AttentionSetting, attention: Latent, dtypes: Dtypes) -> AttentionPart:
    """Sparse layers as whole modules; those that see an earlier layer's choice have rows without its indexer."""
    tables = setting.profile.tables
    if SPARSE_DECODE not in tables or SPARSE_PREFILL not in tables:
        raise InputError(f"profile {setting.profile.name} has no seconds of {attention.kind}")
    weights = dtypes.of("query_up")
    skips = attention.indexer is None
    decode_table, prefill_table = (
        _of_sizes(_of_op(tables[name], skips=skips), attention) for name in (SPARSE_DECODE, SPARSE_PREFILL)
    )
    prefill_table = prefill_table.rows(prefill_table.sizes["cached"] == 0)
    decode, one = _row(decode_table, attention.heads, dtypes, weights)
    prefill, other = _row(prefill_table, attention.heads, dtypes, weights)
    model = LatentAttention(surface_of(decode_table, [decode]), prompts_of(prefill_table, prefill), None)
    published = (attention.nope_dim, attention.value_dim) in _PUBLISHERS
    return AttentionPart(model, _PROJECTIONS | _INDEXER, measured=one and other and published)


_PUBLISHERS = {(128, 128): "deepseek-ai/", (192, 256): "GLM-5"}
"""In whose models' names heads of these sizes are (rotary part left out; values)."""


def _of_sizes(table: OperatorTable, attention: Latent) -> OperatorTable:
    """The rows of models with heads of the same sizes, if there are any."""
    name = _PUBLISHERS.get((attention.nope_dim, attention.value_dim), "")
    own = np.char.find(table.kinds["model"].astype(str), name) >= 0
    return table.rows(own) if own.any() else table


def _of_op(table: OperatorTable, *, skips: bool) -> OperatorTable:
    """The rows with an indexer, or without."""
    own = np.char.endswith(table.kinds["op"].astype(str), "skip_indexer") == skips
    return table.rows(own) if own.any() else table
