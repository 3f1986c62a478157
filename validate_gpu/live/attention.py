"""Attention over paged KV: the seam between the model and its kernels, and the reference for them."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from validate_gpu.live.inputs import PageTable


class Attention(Protocol):
    """Attends every query row to its request's context, causally."""

    def plan(self, table: PageTable) -> None:
        """Prepare for one iteration's batch; called once, before its layers run."""
        ...

    def run(self, queries: Tensor, keys: Tensor, values: Tensor, out: Tensor | None = None) -> Tensor:
        """One layer's attention; this step's keys and values have been stored.

        ``queries`` ``[t, heads, head_dim]``, ``keys`` and ``values`` ``[pages, page_tokens, kv_heads, head_dim]``;
        returns ``[t, heads, head_dim]``, which is ``out`` if that is given.
        """
        ...


class TorchAttention:
    """PyTorch's own attention, request by request over gathered pages: the CPU's, and what others are checked against.

    A request's result does not depend on what else is in its batch.
    """

    def __init__(self) -> None:
        self._requests: list[tuple[slice, Tensor, int]] = []

    def plan(self, table: PageTable) -> None:
        """Note each request's query rows, pages and context."""
        queries, pages = table.query_indptr.tolist(), table.page_indptr.tolist()
        page_ids = torch.from_numpy(table.pages.astype("int64"))
        self._requests = [
            (slice(queries[i], queries[i + 1]), page_ids[pages[i] : pages[i + 1]], context)
            for i, context in enumerate(table.context_tokens.tolist())
        ]

    def run(self, queries: Tensor, keys: Tensor, values: Tensor, out: Tensor | None = None) -> Tensor:
        """Attention of every request in turn."""
        out = torch.empty_like(queries) if out is None else out
        for rows, pages, context in self._requests:
            count = rows.stop - rows.start
            own = pages.to(keys.device)
            own_keys, own_values = (part[own].flatten(0, 1)[:context].transpose(0, 1) for part in (keys, values))
            # Query row i of the last `count` tokens sees all tokens up to its own.
            mask = None
            if count > 1:
                mask = torch.ones(count, context, dtype=torch.bool, device=queries.device).tril(context - count)
            attended = scaled_dot_product_attention(
                queries[rows].transpose(0, 1), own_keys, own_values, attn_mask=mask, enable_gqa=True
            )
            out[rows] = attended.transpose(0, 1)
        return out
