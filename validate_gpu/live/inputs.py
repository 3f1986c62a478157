"""A step as arrays: what the model computes, where its KV lies, and which rows sample a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l4sim.engine.protocol import Step
from l4sim.engine.request import Request
from validate_gpu.live.pages import PagedPool
from validate_gpu.live.sequences import Sequences

Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PageTable:
    """The page tables of a batch of ``n`` requests, ragged; decoding requests first, one query token each."""

    decodes: int
    query_indptr: Int32Array
    """Shape ``[n + 1]``: request ``i`` has the query rows ``[query_indptr[i], query_indptr[i + 1])``."""
    page_indptr: Int32Array
    """Shape ``[n + 1]``: and the pages ``pages[page_indptr[i]:page_indptr[i + 1]]``."""
    pages: Int32Array
    context_tokens: Int32Array
    """Shape ``[n]``: tokens to attend to, this step's included; a query row is one of the last of them."""
    page_tokens: int

    @property
    def last_page_tokens(self) -> Int32Array:
        """Tokens in each request's last page, 1 to ``page_tokens``; shape ``[n]``."""
        return (self.context_tokens - 1) % self.page_tokens + 1


@dataclass(frozen=True, slots=True)
class StepInputs:
    """One iteration's inputs; ``t`` query tokens in the order of the table's requests."""

    token_ids: Int64Array
    """Shape ``[t]``."""
    positions: Int64Array
    """Shape ``[t]``."""
    slots: Int64Array
    """Shape ``[t]``: where each token's KV goes: page x page size + offset."""
    sample_rows: Int64Array
    """Rows whose next token is sampled, in the order of ``samplers``."""
    samplers: tuple[tuple[int, int], ...]
    """The requests that sample a token, by number, and how many each has sampled before."""
    table: PageTable


def build_inputs(step: Step, decoding: Sequence[Request], pool: PagedPool, sequences: Sequences) -> StepInputs:
    """Arrays for a step, whose requests get the pages that they need."""
    contexts = step.batch.decode_context_tokens
    size = pool.block_tokens
    rows = [(request, int(context) - 1, int(context)) for request, context in zip(decoding, contexts, strict=True)] + [
        (chunk.request, chunk.done_tokens, chunk.done_tokens + chunk.tokens) for chunk in step.chunks
    ]
    tables = [pool.grow(request.index, end) for request, _, end in rows]
    token_ids = [sequences.tokens(request.index, request.prompt_tokens, start, end) for request, start, end in rows]
    positions = [np.arange(start, end) for _, start, end in rows]
    slots = [table[at // size].astype(np.int64) * size + at % size for table, at in zip(tables, positions, strict=True)]
    query_indptr = indptr([end - start for _, start, end in rows])
    samples = [True] * len(decoding) + [chunk.ends for chunk in step.chunks]
    table = PageTable(
        decodes=len(decoding),
        query_indptr=query_indptr,
        page_indptr=indptr([len(pages) for pages in tables]),
        pages=np.concatenate(tables),
        context_tokens=np.array([end for _, _, end in rows], dtype=np.int32),
        page_tokens=size,
    )
    return StepInputs(
        token_ids=np.concatenate(token_ids),
        positions=np.concatenate(positions),
        slots=np.concatenate(slots),
        sample_rows=query_indptr[1:][samples].astype(np.int64) - 1,
        samplers=tuple(
            (request.index, end - request.prompt_tokens)
            for (request, _, end), sample in zip(rows, samples, strict=True)
            if sample
        ),
        table=table,
    )


def pad_decodes(inputs: StepInputs, size: int, scratch_page: int) -> StepInputs:
    """A decode-only step filled up to ``size`` requests, which write to and attend to one scratch token."""
    table, missing = inputs.table, size - len(inputs.token_ids)
    first_page = int(table.page_indptr[-1])
    scratch_slot = scratch_page * table.page_tokens
    padded = PageTable(
        decodes=size,
        query_indptr=np.arange(size + 1, dtype=np.int32),
        page_indptr=np.append(table.page_indptr, np.arange(first_page + 1, first_page + missing + 1)).astype(np.int32),
        pages=np.append(table.pages, np.full(missing, scratch_page)).astype(np.int32),
        context_tokens=np.append(table.context_tokens, np.ones(missing)).astype(np.int32),
        page_tokens=table.page_tokens,
    )
    return StepInputs(
        token_ids=np.append(inputs.token_ids, np.zeros(missing, dtype=np.int64)),
        positions=np.append(inputs.positions, np.zeros(missing, dtype=np.int64)),
        slots=np.append(inputs.slots, np.full(missing, scratch_slot)),
        sample_rows=inputs.sample_rows,
        samplers=inputs.samplers,
        table=padded,
    )


def indptr(counts: Sequence[int]) -> Int32Array:
    """Where each of several ragged parts begins, and where the last ends; shape ``[len(counts) + 1]``."""
    starts = np.zeros(len(counts) + 1, dtype=np.int32)
    np.cumsum(counts, out=starts[1:])
    return starts
