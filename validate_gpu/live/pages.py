"""KV blocks with numbers: which pages of the device's pool hold which request."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from l4sim.engine.blocks import BlockPool, blocks_for
from l4sim.engine.request import Request

PageIds = NDArray[np.int32]


class PagedPool(BlockPool):
    """The engine's counts, and behind them a page table per request; the two must agree, or an AssertionError says so.

    The engine takes and gives counts when it plans; a request's table grows when its step is carried out, or when a
    migration brings its KV.
    """

    def __init__(self, total: int, block_tokens: int, *, first_page: int = 0) -> None:
        """``first_page``: where this pool's pages begin in a device's memory that several instances share."""
        super().__init__(total, block_tokens)
        # The lowest page is on top, so that small runs touch little memory.
        self._free_pages = np.arange(first_page + total - 1, first_page - 1, -1, dtype=np.int32)
        self._free_count = total
        self._tables: dict[int, PageIds] = {}
        self._held: dict[int, int] = {}

    @property
    def pages_held(self) -> int:
        """Pages in all tables; fewer than the engine has taken while a migration's reservation is not filled yet."""
        return self.total - self._free_count

    def pages(self, request: int) -> PageIds:
        """A request's pages in order of its tokens; empty if it has none here. A view: read it, do not keep it."""
        return self._tables[request][: self._held[request]] if request in self._held else _NO_PAGES

    def grow(self, request: int, tokens: int) -> PageIds:
        """Give a request the pages that ``tokens`` tokens need; returns all of its pages."""
        held = self._held.get(request, 0)
        wanted = blocks_for(tokens, self.block_tokens)
        more = wanted - held
        if more > 0:
            if self.pages_held + more > self.total - self.free:
                raise AssertionError(f"request {request} needs {more} pages that the engine has not taken")
            table = self._tables.get(request, _NO_PAGES)
            if wanted > len(table):
                table = np.concatenate([table[:held], np.empty(max(wanted, 2 * held) - held, dtype=np.int32)])
                self._tables[request] = table
            self._free_count -= more
            table[held:wanted] = self._free_pages[self._free_count : self._free_count + more][::-1]
            self._held[request] = wanted
        return self.pages(request)

    def discard(self, request: int) -> None:
        """Free a request's pages, if it has any; the counts are the engine's to change."""
        pages = self.pages(request)
        if len(pages):
            self._free_pages[self._free_count : self._free_count + len(pages)] = pages[::-1]
            self._free_count += len(pages)
            del self._tables[request], self._held[request]

    def release(self, request: Request, tokens: int, hashed_tokens: int) -> None:
        """Take back all blocks of a request, and its pages with them."""
        held = len(self.pages(request.index))
        if held != blocks_for(tokens, self.block_tokens):
            raise AssertionError(f"request {request.index} holds {held} pages for {tokens} tokens")
        self.discard(request.index)
        super().release(request, tokens, hashed_tokens)


_NO_PAGES = np.empty(0, dtype=np.int32)
