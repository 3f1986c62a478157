"""KV memory on a device, paged, and copies between two such pools."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from l4sim.specs.model import Model, uniform_layers
from validate_gpu.live.pages import PageIds

_PIECE_BYTES = 1 << 28


class KvMemory:
    """Keys and values on one device: all layers, ``pages`` pages for its instances, and a scratch page."""

    def __init__(self, model: Model, pages: int, page_tokens: int, device: torch.device, dtype: torch.dtype) -> None:
        layers = uniform_layers(model)
        shape = (layers.count, pages + 1, page_tokens, layers.attention.kv_heads, layers.attention.head_dim)
        self.page_tokens = page_tokens
        self.scratch_page = pages
        # Zeros, since a NaN in memory not yet written would survive a masked product; written, since a CPU would else
        # map the memory only while the first run is timed.
        self.keys = torch.empty(shape, device=device, dtype=dtype).zero_()
        """Shape ``[layers, pages + 1, page_tokens, kv_heads, head_dim]``."""
        self.values = torch.empty(shape, device=device, dtype=dtype).zero_()
        """Likewise."""

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values, in all layers."""
        return 2 * self.keys[:, 0, 0].numel() * self.keys.element_size()

    def layer(self, number: int) -> tuple[Tensor, Tensor]:
        """One layer's keys and values by slot, page x page size + offset; ``[slots, kv_heads, head_dim]``, a view."""
        return self.keys[number].flatten(0, 1), self.values[number].flatten(0, 1)

    def read_tokens(self, pages: PageIds, start: int, end: int) -> Tensor:
        """KV of tokens ``[start, end)`` of a request with these pages; shape ``[2, layers, n, kv_heads, head_dim]``."""
        slots = self._slots(pages, start, end)
        return torch.stack([part.flatten(1, 2).index_select(1, slots) for part in (self.keys, self.values)])

    def write_tokens(self, pages: PageIds, start: int, end: int, kv: Tensor) -> None:
        """Store what `read_tokens` gave, on whichever device it is (a peer copy between GPUs)."""
        slots = self._slots(pages, start, end)
        for part, new in zip((self.keys, self.values), kv.to(self.keys.device), strict=True):
            part.flatten(1, 2).index_copy_(1, slots, new)

    def _slots(self, pages: PageIds, start: int, end: int) -> Tensor:
        at = torch.arange(start, end)
        table = torch.from_numpy(pages.astype("int64"))
        return (table[at // self.page_tokens] * self.page_tokens + at % self.page_tokens).to(self.keys.device)


def copy_kv(
    source: KvMemory, source_pages: PageIds, destination: KvMemory, destination_pages: PageIds, start: int, end: int
) -> None:
    """Copy the KV of a request's tokens ``[start, end)`` from one pool's pages to another's."""
    for first, last in _pieces(source, start, end):
        destination.write_tokens(destination_pages, first, last, source.read_tokens(source_pages, first, last))


def equal_kv(
    source: KvMemory, source_pages: PageIds, destination: KvMemory, destination_pages: PageIds, start: int, end: int
) -> bool:
    """Whether both pools hold the same for a request's tokens ``[start, end)``, bit for bit: then so do all logits."""
    return all(
        torch.equal(
            source.read_tokens(source_pages, first, last).to(destination.keys.device),
            destination.read_tokens(destination_pages, first, last),
        )
        for first, last in _pieces(source, start, end)
    )


def _pieces(memory: KvMemory, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges of tokens whose KV is gathered at a time: a pool may leave little memory beside it."""
    step = max(_PIECE_BYTES // memory.token_bytes, 1)
    for first in range(start, end, step):
        yield first, min(first + step, end)
