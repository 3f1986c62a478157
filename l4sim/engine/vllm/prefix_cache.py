"""Automatic prefix caching: full blocks are found again by their content until they are taken for something else.

After vLLM's `v1/core/block_pool.py`. Free blocks stand in a queue, next to be taken first. A full block gets a hash,
and with it a name (`Request.block_keys`) by which requests that begin alike find it, held or free. Two requests that
compute the same prefix at the same time have a copy each; the copy hashed first is the one that is found.

A prompt may have thousands of blocks, nearly all of which live and die together. So what vLLM does block by block is
done here by *pieces* of the runs in which blocks are named. A piece is split only where somebody holds, or takes, a
part of it; the result is the same, block for block.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from l4sim.engine.blocks import NO_MATCH, BlockPool, Match, blocks_for
from l4sim.engine.request import Request


class _Piece:
    """Hashed blocks ``[start, end)`` of a run, in as many KV blocks, which the same requests hold."""

    __slots__ = ("end", "holders", "next", "number", "run", "start")

    def __init__(self, run: _Run, start: int, end: int, holders: int, number: int) -> None:
        self.run = run
        self.start = start
        self.end = end
        self.holders = holders
        self.number = number
        """Counts pieces in the order in which they were hashed."""
        self.next: _Piece | None = None
        """What was split off its end."""


class _Run:
    """What is there of one run of names."""

    __slots__ = ("copies", "key", "pieces")

    def __init__(self, key: int) -> None:
        self.key = key
        self.pieces: list[_Piece] = []
        """By where they start."""
        self.copies = False
        """Whether some block is there more than once."""

    def leading(self, blocks: int) -> Iterator[tuple[_Piece, int]]:
        """The pieces, each with where its part ends, that the first so many blocks are found in."""
        if not self.copies:
            for piece in self.pieces:
                if piece.start >= blocks:
                    return
                yield piece, min(piece.end, blocks)
            return
        at = 0
        while at < blocks:
            there = [piece for piece in self.pieces if piece.start <= at < piece.end]
            if not there:
                return
            first = min(there, key=lambda piece: piece.number)
            others = [piece.start for piece in self.pieces if piece.start > at and piece.number < first.number]
            at = min(first.end, blocks, *others)
            yield first, at

    def insert(self, piece: _Piece) -> None:
        """Add a piece in its place."""
        pieces = self.pieces
        at = len(pieces)
        while at and pieces[at - 1].start > piece.start:
            at -= 1
        pieces.insert(at, piece)

    def look_for_copies(self) -> None:
        """Find out whether pieces still overlap."""
        reach = 0
        self.copies = False
        for piece in self.pieces:
            self.copies = self.copies or piece.start < reach
            reach = max(reach, piece.end)


@dataclass(slots=True)
class _Held:
    """What a request holds of the hashed blocks: all up to some block of its context."""

    blocks: int = 0
    pieces: list[tuple[_Piece, int]] = field(default_factory=list)
    """Each with where it ended when it was taken hold of: it may have been split since."""

    def __len__(self) -> int:
        return self.blocks


class _Blank:
    """Free blocks without a hash, next to one another in the queue."""


class PrefixCachingPool(BlockPool):
    """Blocks with content: the free queue, and the hashed blocks by run."""

    def __init__(self, total: int, block_tokens: int, *, unhashed_first: bool = True) -> None:
        """``unhashed_first``: freed blocks without a hash go to the front of the queue (else behind all others)."""
        super().__init__(total, block_tokens)
        self._unhashed_first = unhashed_first
        self._front = total
        """Blocks without a hash at the front of the queue."""
        self._queue: OrderedDict[_Piece | _Blank, int] = OrderedDict()
        """What stands behind them: blanks with their number, pieces, whose last block is taken first, with 0."""
        self._runs: dict[int, _Run] = {}
        self._answering: dict[int, dict[int, tuple[Request, Callable[[Request], int]]]] = {}
        """By run, then by request, who decodes: blocks of its answer are yet to be hashed."""
        self._hashed = 0

    # The queue.

    def take(self, blocks: int) -> None:
        """Take free blocks from the front of the queue; what they held is not found any more."""
        if blocks <= self._front:
            self._front -= blocks
            self.free -= blocks
            return
        super().take(blocks)
        blocks -= self._front
        self._front = 0
        while blocks:
            entry = next(iter(self._queue))
            if isinstance(entry, _Blank):
                taken = min(self._queue[entry], blocks)
                self._queue[entry] -= taken
                if not self._queue[entry]:
                    del self._queue[entry]
            else:
                taken = min(entry.end - entry.start, blocks)
                entry.end -= taken
                key, gone = entry.run.key, range(entry.end, entry.end + taken)
                if entry.start == entry.end:
                    del self._queue[entry]
                    entry.run.pieces.remove(entry)
                    if not entry.run.pieces:
                        del self._runs[entry.run.key]
                if entry.run.copies:
                    entry.run.look_for_copies()
                if self.log is not None:
                    self._log(self.log.remove, key, gone)
            blocks -= taken

    def _log(self, note: Callable[[int], None], key: int, blocks: range) -> None:
        """Note those of a run's blocks that are not there (any more, or yet)."""
        run = self._runs.get(key)
        pieces = run.pieces if run is not None else ()
        for block in blocks:
            if not any(piece.start <= block < piece.end for piece in pieces):
                note(key + block)

    def give(self, blocks: int) -> None:
        """Give back blocks whose content is of no further use."""
        self.free += blocks
        if self._unhashed_first:
            self._front += blocks
        elif blocks:
            self._queue[_Blank()] = blocks

    # What is found.

    def _found(self, request: Request, blocks: int) -> Iterator[tuple[_Piece, int, int]]:
        """The leading blocks of a request, at most so many, that are here: piece by piece, which part of each."""
        for keys in request.block_keys:
            if blocks <= 0:
                return
            wanted = min(len(keys), blocks)
            if self._answering:
                self._catch_up(keys.start)
            run = self._runs.get(keys.start)
            at = 0
            for piece, end in run.leading(wanted) if run is not None else ():
                yield piece, at, end
                at = end
            if at < wanted:
                return
            blocks -= wanted

    def match(self, request: Request) -> Match:
        """The leading blocks that are here; never the one with the last token, which is computed to sample from."""
        keys = request.block_keys
        if not keys or (keys[0] and keys[0].start not in self._runs and keys[0].start not in self._answering):
            # Nobody has begun as it does.
            return NO_MATCH
        blocks = idle = 0
        for piece, start, end in self._found(request, (request.total_tokens - 1) // self.block_tokens):
            blocks += end - start
            if not piece.holders:
                idle += end - start
        return Match(blocks * self.block_tokens, blocks, idle) if blocks else NO_MATCH

    def hold(self, request: Request, match: Match) -> None:
        """Let a request hold the blocks it matched."""
        held = request.held = _Held(match.blocks)
        if not match.blocks:
            return
        for piece, start, end in list(self._found(request, match.blocks)):
            part = self._part(piece, start, end)
            part.holders += 1
            held.pieces.append((part, end))
        self.free -= match.idle_blocks

    def _part(self, piece: _Piece, start: int, end: int) -> _Piece:
        """The blocks ``[start, end)`` of a piece as one of their own, and out of the queue."""
        if piece.holders:
            if piece.start < start:
                piece = self._split(piece, start)
            if end < piece.end:
                self._split(piece, end)
            return piece
        if (piece.start, piece.end) == (start, end):
            del self._queue[piece]
            return piece
        part = _Piece(piece.run, start, end, 0, piece.number)
        run = piece.run
        if piece.start == start:
            piece.start = end
        elif piece.end == end:
            piece.end = start
        else:
            # What is left on either side keeps its place in the queue, the later blocks in front.
            before = _Piece(run, piece.start, start, 0, piece.number)
            piece.start = end
            entries = list(self._queue.items())
            self._queue.clear()
            for entry, blocks in entries:
                self._queue[entry] = blocks
                if entry is piece:
                    self._queue[before] = 0
            run.insert(before)
        run.pieces.sort(key=_start)
        run.insert(part)
        return part

    def _split(self, piece: _Piece, at: int) -> _Piece:
        """Split a held piece; returns its later part."""
        later = _Piece(piece.run, at, piece.end, piece.holders, piece.number)
        later.next, piece.next = piece.next, later
        piece.end = at
        piece.run.insert(later)
        return later

    # What is hashed.

    def computed(self, request: Request, tokens: int) -> None:
        """Hash the blocks that are now full, so that others find them from here on."""
        if self._answering:
            for key in self._to_come(request):
                if key in self._answering:
                    self._catch_up(key, besides=request)
        self._hash_to(request, tokens // self.block_tokens)

    def _hash_to(self, request: Request, blocks: int) -> None:
        """Hash a request's blocks up to so many."""
        held: _Held | None = request.held
        if held is None:
            held = request.held = _Held()
        there = held.blocks
        if blocks <= there:
            return
        for keys in request.block_keys:
            length = len(keys)
            if there < length:
                end = min(blocks, length)
                self._hash(held, keys.start, there, end)
                held.blocks += end - there
                there = length
            if blocks <= length:
                return
            there -= length
            blocks -= length

    def _hash(self, held: _Held, key: int, start: int, end: int) -> None:
        """Hash blocks of one run, which then are held."""
        if self.log is not None:
            self._log(self.log.store, key, range(start, end))
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = _Run(key)
        reach = run.pieces[-1].end if run.pieces else 0
        if start < reach:
            run.copies = True
        elif held.pieces and start == reach and not run.copies:
            last, last_end = held.pieces[-1]
            if last.run is run and last.holders == 1 and last.end == last_end == reach:
                # A prompt that goes on where it left off.
                last.end = end
                held.pieces[-1] = (last, end)
                return
        self._hashed += 1
        piece = _Piece(run, start, end, 1, self._hashed)
        run.insert(piece)
        held.pieces.append((piece, end))

    def answers(self, request: Request, hashed_tokens: Callable[[Request], int]) -> None:
        """Note that a request decodes; blocks of its answer are hashed when somebody looks for them, or at its end."""
        for key in self._to_come(request):
            self._answering.setdefault(key, {})[request.index] = request, hashed_tokens

    def _to_come(self, request: Request) -> Sequence[int]:
        """The runs of which a request has blocks that are not hashed."""
        left = request.held.blocks if request.held is not None else 0
        to_come = []
        for keys in request.block_keys:
            if len(keys) > left:
                to_come.append(keys.start)
                left = 0
            else:
                left -= len(keys)
        return to_come

    def _catch_up(self, key: int, besides: Request | None = None) -> None:
        """Hash what decoding requests have by now of a run that somebody looks at."""
        for request, hashed_tokens in self._answering.get(key, {}).values():
            if request is not besides:
                self._hash_to(request, hashed_tokens(request) // self.block_tokens)

    def release(self, request: Request, tokens: int, hashed_tokens: int) -> None:
        """Take back all blocks of a request, the last first."""
        if self._answering:
            for keys in request.block_keys:
                decoding = self._answering.get(keys.start)
                if decoding is not None and decoding.pop(request.index, None) is not None and not decoding:
                    del self._answering[keys.start]
        self.computed(request, hashed_tokens)
        held: _Held = request.held
        self.give(blocks_for(tokens, self.block_tokens) - held.blocks)
        behind: _Piece | None = None
        for first, end in reversed(held.pieces):
            for piece in (first,) if first.end == end else reversed(_parts(first, end)):
                piece.holders -= 1
                if piece.holders:
                    continue
                self.free += piece.end - piece.start
                run = piece.run
                if behind is not None and behind.run is run and behind.start == piece.end and not run.copies:
                    behind.start = piece.start
                    run.pieces.remove(piece)
                else:
                    behind = piece
                    self._queue[piece] = 0
        request.held = None

    # Invariants.

    def violations(self) -> list[str]:
        """What of the pool's invariants does not hold."""
        found = super().violations()
        queued = self._front
        for entry, blocks in self._queue.items():
            queued += blocks if isinstance(entry, _Blank) else entry.end - entry.start
        if queued != self.free:
            found.append(f"E2: {queued} blocks are in line to be taken, {self.free} are free")
        hashed = [piece for run in self._runs.values() for piece in run.pieces]
        if any((piece.holders == 0) != (piece in self._queue) for piece in hashed):
            found.append("E2: a hashed block is in line to be taken while it is held, or nowhere")
        return found


def _start(piece: _Piece) -> int:
    return piece.start


def _parts(piece: _Piece, end: int) -> list[_Piece]:
    """The pieces that what was one piece has been split into."""
    parts = [piece]
    while piece.end < end:
        assert piece.next is not None
        piece = piece.next
        parts.append(piece)
    return parts
