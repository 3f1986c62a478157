"""Groups of layers that share tables of KV blocks: what of a context each keeps, and the bytes of a block.

After vLLM's `v1/core/kv_cache_utils.py`, `single_type_kv_cache_manager.py` and `v1/kv_cache_interface.py` (0.32). A
model whose layers all keep every token has one table of blocks per request. Others have a table per group of layers;
the blocks of all groups are of one size in bytes and come from one pool, so a block may hold many tokens of few layers,
or few of many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Literal

from l4sim.errors import InputError
from l4sim.specs.attention import Latent, VariedQuery
from l4sim.specs.layers import LayerGroup
from l4sim.specs.recurrent import Mamba

Kind = Literal["full", "window", "chunk", "state"]
"""Whether a group's layers keep every token, those in a sliding window, those of the current chunk, or a state."""

_KERNEL_TOKENS = 16
"""What attention kernels want blocks to be a multiple of (`get_supported_kernel_block_sizes`)."""
_LATENT_TOKENS, _LATENT_STATE_TOKENS = 64, 128
"""Of latent attention: FlashMLA's blocks, and those beside states (`Platform.update_block_size_for_backend`)."""
_ALIKE = 1.5
"""Up to which ratio of their numbers kinds of layers make one group each (`_get_kv_cache_groups_uniform_page_size`)."""


@dataclass(frozen=True, slots=True)
class KVGroup:
    """Groups of layers that are alike: their tables have the same lengths, in blocks of their own.

    Raises:
        InputError: a number below 1, or a window that a kind without one has, or one with lacks.
    """

    kind: Kind
    block_tokens: int
    """Tokens per block."""
    window_tokens: int = 0
    """Of a sliding window (with the token itself) or a chunk."""
    count: int = 1
    """How many groups."""
    exports: bool = False
    """Whether the state at a prompt's last full block is kept from within an iteration, as Mamba-2's kernels can."""

    def __post_init__(self) -> None:
        if self.block_tokens < 1 or self.count < 1 or self.window_tokens < 0:
            raise InputError(f"KV group {self}: accepted are whole numbers of at least 1")
        if (self.window_tokens > 0) != (self.kind in ("window", "chunk")):
            raise InputError(f"KV group {self}: a window or chunk has window_tokens, and nothing else has")

    def passed_blocks(self, tokens: int) -> int:
        """Leading blocks that nothing looks at any more once so many tokens are computed."""
        match self.kind:
            case "full":
                passed = 0
            case "window":
                passed = tokens - self.window_tokens + 1
            case "chunk":
                passed = tokens // self.window_tokens * self.window_tokens
            case "state":
                passed = tokens - 1
        return max(passed, 0) // self.block_tokens

    @property
    def hit_blocks(self) -> int:
        """Blocks in a row that a sliding window needs to go on behind them."""
        return _ceil(self.window_tokens - 1, self.block_tokens)

    def new_blocks(self, blocks: int, exported: int = 0) -> int:
        """How many of so many further blocks are taken: a state takes the last alone, and that which it exports."""
        return min(blocks, 1 + exported) if self.kind == "state" else blocks

    def exported(self, start_tokens: int, end_tokens: int, prompt_end_tokens: int) -> int:
        """How many states an iteration from one token to another keeps besides its last (0 or 1).

        That of the last full block before a prompt's end, if there are further ones before it
        (`is_mamba_prefill_checkpoint_valid`).
        """
        size = self.block_tokens
        if not self.exports or end_tokens < prompt_end_tokens or start_tokens % size:
            return 0
        kept_tokens = (end_tokens - 1) // size * size
        return int(kept_tokens >= start_tokens + size)

    def held_blocks(self, tokens: int) -> int:
        """Blocks that a context of so many tokens holds in all the groups together, once all of it is computed."""
        return self.count * self.new_blocks(_ceil(tokens, self.block_tokens) - self.passed_blocks(tokens))

    def window_blocks(self, in_flight_tokens: int, max_model_len: int) -> int | None:
        """Blocks that a window or chunk of one request holds at most; None for kinds that have none.

        ``in_flight_tokens``: those of the iterations that may be under way at once, at most; what they look at stays.
        """
        if self.kind == "window":
            # The window may begin in the middle of a block.
            return _ceil(min(self.window_tokens - 1 + in_flight_tokens, max_model_len), self.block_tokens) + 1
        if self.kind == "chunk":
            return _ceil(min(self.window_tokens + in_flight_tokens, max_model_len), self.block_tokens)
        return None

    def most_blocks(self, tokens: int, in_flight_tokens: int, max_model_len: int) -> int:
        """Blocks that a request holds at most in all the groups while it grows to so many tokens."""
        needed = _ceil(tokens, self.block_tokens)
        if self.kind == "state":
            # One state is copied into the next block before it goes.
            return self.count * min(needed, 3 if self.exports else 2)
        most = self.window_blocks(in_flight_tokens, max_model_len)
        return self.count * (needed if most is None else min(needed, most))


@dataclass(frozen=True, slots=True)
class KVLayout:
    """How one GPU's KV memory is divided into blocks."""

    block_tokens: int
    """Tokens by which blocks are named: of a block where there is one group, else what all groups' are multiples of."""
    block_bytes: int
    """Of a block on one GPU."""
    groups: tuple[KVGroup, ...] = ()
    """None where every layer keeps every token: there is one group of all."""

    def held_blocks(self, tokens: int) -> int:
        """Blocks that a sequence of so many tokens holds."""
        return sum(group.held_blocks(tokens) for group in self.groups) if self.groups else self._all(tokens)

    def most_blocks(self, tokens: int, in_flight_tokens: int) -> int:
        """Blocks that a sequence holds at most while it grows to so many tokens, as vLLM tells concurrency by."""
        if not self.groups:
            return self._all(tokens)
        return sum(group.most_blocks(tokens, in_flight_tokens, tokens) for group in self.groups)

    def _all(self, tokens: int) -> int:
        return _ceil(tokens, self.block_tokens)


@dataclass(frozen=True, slots=True)
class _Layers:
    """What layers keep that can share a table, on one GPU."""

    kind: Kind
    window_tokens: int
    token_bytes: int
    """Of one token in one layer; 0 for a state."""
    state_bytes: int
    shape: tuple[int, ...]
    """Layers of the same bytes but other heads have tables of their own."""
    latent: bool
    exports: bool = False


def kv_layout(
    name: str,
    groups: Sequence[LayerGroup],
    *,
    ranks: int,
    block_tokens: int,
    max_model_len: int,
    prefix_caching: bool,
) -> KVLayout:
    """The layout of a model's layers on one of ``ranks`` GPUs that share them, as vLLM 0.32 would have it.

    ``block_tokens`` is the block size asked for: of all layers, or of those whose tokens take most bytes, and more
    where a block must hold a state. ``name`` is the model's, for errors.

    Raises:
        InputError: layers that keep compressed entries, or several things that are not all every token's.
    """
    counts: dict[_Layers, int] = {}
    for group in groups:
        rank = group.of_rank(ranks)
        if rank.kept:
            kept = _layers(name, rank)
            counts[kept] = counts.get(kept, 0) + rank.count
    kinds = tuple(counts)
    if any(kind.latent for kind in kinds):
        block_tokens = _ceil(block_tokens, _LATENT_TOKENS) * _LATENT_TOKENS
    if len({(kind.kind, kind.window_tokens, kind.state_bytes) for kind in kinds}) == 1 and kinds[0].kind != "state":
        # All need as many blocks: one table, whatever their heads.
        block_bytes = block_tokens * sum(count * kind.token_bytes for kind, count in counts.items())
        alone = () if kinds[0].kind == "full" else (KVGroup(kinds[0].kind, block_tokens, kinds[0].window_tokens),)
        return KVLayout(block_tokens, block_bytes, alone)
    if not kinds:
        raise InputError(f"{name}: no layer keeps anything of a sequence, accepted are models with KV or states")
    block_tokens, page_bytes = _page(kinds, block_tokens)
    sizes = tuple(_block_tokens(kind, block_tokens, page_bytes, max_model_len, prefix_caching) for kind in kinds)
    fewest, most = min(counts.values()), max(counts.values())
    layers = most if most < _ALIKE * fewest else fewest
    return KVLayout(
        gcd(*sizes),
        layers * page_bytes,
        tuple(
            KVGroup(kind.kind, size, kind.window_tokens, _ceil(count, layers), kind.exports and prefix_caching)
            for (kind, count), size in zip(counts.items(), sizes, strict=True)
        ),
    )


def _layers(name: str, group: LayerGroup) -> _Layers:
    kept, attention = group.kept, group.attention
    latent = isinstance(attention, Latent)
    if all(each.every_token for each in kept):
        shape = tuple(getattr(attention, field, 0) for field in ("kv_heads", "head_dim", "value_dim"))
        return _Layers("full", 0, sum(each.entry_bytes for each in kept), 0, shape, latent)
    if len(kept) > 1 or kept[0].tokens_per_entry > 1:
        raise InputError(
            f"{name}: {attention.kind} keeps entries that stand for several tokens beside others: its blocks are not "
            "counted, accepted are layers that keep every token, a window or a state"
        )
    if kept[0].window_tokens is None:
        return _Layers("state", 0, 0, kept[0].state_bytes, (), False, isinstance(attention, Mamba))
    chunked = isinstance(attention, VariedQuery) and attention.chunked
    shape = tuple(getattr(attention, field, 0) for field in ("kv_heads", "head_dim", "value_dim"))
    return _Layers("chunk" if chunked else "window", kept[0].window_tokens, kept[0].entry_bytes, 0, shape, latent)


def _page(kinds: Sequence[_Layers], block_tokens: int) -> tuple[int, int]:
    """Tokens and bytes of one layer's block, of the layers whose tokens take most."""
    token_bytes = [kind.token_bytes for kind in kinds if kind.token_bytes]
    state_bytes = max(kind.state_bytes for kind in kinds)
    if not token_bytes:
        return block_tokens, state_bytes
    if state_bytes:
        # Keys and values of so many tokens that a state takes no more (`Platform.update_block_size_for_backend`).
        latent = any(kind.latent for kind in kinds)
        step = max(_LATENT_STATE_TOKENS if latent else _KERNEL_TOKENS, block_tokens)
        block_tokens = max(block_tokens, step * _ceil(state_bytes, step * token_bytes[0]))
    return block_tokens, block_tokens * max(token_bytes)


def _block_tokens(kind: _Layers, block_tokens: int, page_bytes: int, max_model_len: int, prefix_caching: bool) -> int:
    """Tokens of a kind's block, which takes a page in each layer."""
    if kind.kind == "state":
        # Without prefix caching one block has the state of any sequence.
        return block_tokens if prefix_caching else _ceil(max_model_len, block_tokens) * block_tokens
    own = block_tokens * kind.token_bytes
    # Pages that do not fit evenly are padded.
    return block_tokens * (page_bytes // own) if page_bytes % own == 0 else block_tokens


def _ceil(count: int, size: int) -> int:
    return -(-count // size)
