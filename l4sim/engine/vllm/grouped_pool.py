"""KV blocks of several groups of layers: a table per group and request, one pool of blocks for all.

After vLLM's `v1/core/kv_cache_coordinator.py`, `single_type_kv_cache_manager.py` and `block_pool.py` (0.32). Of a table
only the ends are kept, as blocks without a hash are all alike: the first that is not passed, and the last. A hashed
block is an object of its own: it is found by its name (`Request.block_keys`) and group, and stands in the queue of free
blocks once nobody holds it. Blocks without a hash are taken before these.

Of a window, and of states, vLLM caches what a later request may resume at: the end of the prompt, and where prompts
were seen to part (`prefix_cache_retention_interval` of 0, its default).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from math import lcm
from typing import NamedTuple

from l4sim.engine.blocks import NO_MATCH, BlockPool, Match
from l4sim.engine.config import EngineConfig
from l4sim.engine.request import Request
from l4sim.specs.kv_groups import KVGroup


class _Block:
    """A hashed block."""

    __slots__ = ("group", "holders", "name", "table")

    def __init__(self, group: int, table: int, name: int) -> None:
        self.group = group
        self.table = table
        """Which of the group's alike ones it belongs to."""
        self.name = name
        self.holders = 1


_Copies = tuple[_Block, ...]
"""The blocks that hold the same tokens for each of the groups that are alike."""

_Places = dict[int, _Copies]
"""Blocks of a table by their place."""


class _Table:
    """One request's blocks ``[first, end)`` in a group, or of a state group those at ``states``."""

    __slots__ = ("end", "first", "hashed", "named", "states")

    def __init__(self) -> None:
        self.first = 0
        self.end = 0
        self.hashed = 0
        """Up to which block it has been settled whether they are hashed."""
        self.named: _Places = {}
        """Those that are hashed."""
        self.states: list[int] = []


class _Held:
    """What a request holds: a table per group, the names of its blocks, and where others may resume."""

    __slots__ = ("names", "parting_tokens", "resume_tokens", "tables")

    def __init__(self, request: Request, parting_tokens: int, groups: int) -> None:
        self.names = _names(request)
        self.parting_tokens = parting_tokens
        # Its prompt is computed from the last token on if it is sent again.
        again = request.prompt_tokens - 1
        self.resume_tokens = (again, parting_tokens) if parting_tokens else (again,)
        self.tables = [_Table() for _ in range(groups)]


class Hit(NamedTuple):
    """What of a request's context is in the prefix cache."""

    tokens: int
    """Leading tokens that need not be computed."""
    parting_tokens: int
    """Where this prompt parts from what some group has longer than the others; 0 if all have as much."""
    groups: tuple[_Places, ...]
    """By group, the blocks to be held by their place."""


class GroupedPool(BlockPool):
    """The blocks of an instance whose layers are of several groups."""

    def __init__(self, config: EngineConfig) -> None:
        """Make the pool of an instance that has ``config.kv_groups``."""
        super().__init__(config.kv_blocks, config.block_tokens)
        self.groups = config.kv_groups
        self.align_tokens = lcm(*(group.block_tokens for group in self.groups))
        """Hits are multiples of this."""
        self._windows = [group.window_blocks(config.in_flight_tokens, config.max_model_len) for group in self.groups]
        self._front = config.kv_blocks
        """Free blocks without a hash: the next to be taken."""
        self._queue: OrderedDict[_Block, None] = OrderedDict()
        """Free blocks with a hash, the next to be taken first."""
        self._found: list[list[dict[int, list[_Block]]]] = [[{} for _ in range(g.count)] for g in self.groups]
        """By group and table: blocks by name, the first to be hashed in front."""
        self._fresh: set[tuple[int, int]] = set()
        """States that this iteration hashed, by group and name: nobody goes on from them before it has run."""
        # Full attention is looked at first, as it bounds the others; groups that are alike are one here.
        self._order = sorted(range(len(self.groups)), key=lambda at: self.groups[at].kind != "full")
        self._answering: dict[int, dict[int, tuple[Request, Callable[[Request], int]]]] = {}
        """By run of names, then by request, who decodes: blocks of its answer are yet to be hashed."""
        self.hashes_answers = any(group.kind == "chunk" for group in self.groups)
        """Whether answers are hashed as they grow, since blocks of theirs are passed that others may find."""
        self._forgetting = [(at, group) for at, group in enumerate(self.groups) if group.kind != "full"]
        self._logged = next((at for at in self._order if self.groups[at].kind == "full"), None)

    def begin_iteration(self) -> None:
        """An iteration is being planned."""
        self._fresh.clear()

    # The queue.

    def take(self, blocks: int) -> None:
        """Take free blocks, those without a hash first; what the others held is not found any more."""
        super().take(blocks)
        blank = min(blocks, self._front)
        self._front -= blank
        for _ in range(blocks - blank):
            block, _ = self._queue.popitem(last=False)
            copies = self._found[block.group][block.table]
            alike = copies[block.name]
            alike.remove(block)
            if not alike:
                del copies[block.name]
                self._note(block, stored=False)

    def give(self, blocks: int) -> None:
        """Give back blocks whose content is of no further use."""
        super().give(blocks)
        self._front += blocks

    def _note(self, block: _Block, *, stored: bool) -> None:
        if self.log is not None and block.group == self._logged and block.table == 0:
            (self.log.store if stored else self.log.remove)(block.name)

    # What is found.

    def find(self, request: Request) -> Hit:
        """The longest beginning of a request's context that every group has, never its last token."""
        most = request.total_tokens - 1
        hits: list[_Places] = [{} for _ in self.groups]
        names = _names(request)
        if not names or most < self.align_tokens:
            return Hit(0, 0, tuple(hits))
        self._catch_up(request)
        tokens, longest = most, 0
        full_tokens: dict[int, int] = {}
        simple = len(self._order) == 2 and self.groups[self._order[0]].kind == "full"
        while True:
            now = tokens
            for at in self._order:
                group = self.groups[at]
                if at in full_tokens:
                    now = min(now, full_tokens[at])
                    continue
                now, hits[at] = _FINDERS[group.kind](self, at, names, now)
                if group.kind == "full":
                    full_tokens[at] = now
                longest = max(longest, now)
            if now >= tokens:
                break
            tokens = now
            if simple:
                break
        for at, group in enumerate(self.groups):
            first, end = group.passed_blocks(tokens), tokens // group.block_tokens
            hits[at] = {place: blocks for place, blocks in hits[at].items() if first <= place < end}
        return Hit(tokens, longest if longest > tokens else 0, tuple(hits))

    def _copies(self, at: int, names: Sequence[int], place: int) -> _Copies | None:
        """The blocks of a group's place, one for each that is alike, if all have it."""
        name = names[(place + 1) * (self.groups[at].block_tokens // self.block_tokens) - 1]
        found = [blocks[name][0] for blocks in self._found[at] if name in blocks]
        return tuple(found) if len(found) == self.groups[at].count else None

    def _find_full(self, at: int, names: Sequence[int], most_tokens: int) -> tuple[int, _Places]:
        size = self.groups[at].block_tokens
        hit: _Places = {}
        for place in range(most_tokens // size):
            copies = self._copies(at, names, place)
            if copies is None:
                break
            hit[place] = copies
        return self._aligned(len(hit) * size), hit

    def _find_window(self, at: int, names: Sequence[int], most_tokens: int) -> tuple[int, _Places]:
        """As `SlidingWindowManager.find_longest_cache_hit`: the last place behind which a whole window is there."""
        size, needed = self.groups[at].block_tokens, self.groups[at].hit_blocks
        hit: _Places = {}
        end = 0
        for place in range(most_tokens // size - 1, -1, -1):
            copies = self._copies(at, names, place)
            if copies is None:
                hit.clear()
                continue
            if not hit:
                end = place + 1
                if end * size % self.align_tokens:
                    continue
            hit[place] = copies
            if len(hit) >= needed:
                return end * size, hit
        # A window that begins with the context.
        return self._aligned(len(hit) * size), hit

    def _find_chunk(self, at: int, names: Sequence[int], most_tokens: int) -> tuple[int, _Places]:
        group = self.groups[at]
        size = group.block_tokens
        place = first = most_tokens // group.window_tokens * group.window_tokens // size
        hit: _Places = {}
        for place in range(first, most_tokens // size):
            copies = self._copies(at, names, place)
            if copies is None:
                break
            hit[place] = copies
        return (first + len(hit)) * size, hit

    def _find_state(self, at: int, names: Sequence[int], most_tokens: int) -> tuple[int, _Places]:
        size = self.groups[at].block_tokens
        for place in range(most_tokens // size - 1, -1, -1):
            copies = self._copies(at, names, place)
            if copies is not None and (place + 1) * size % self.align_tokens == 0:
                return (place + 1) * size, {place: copies}
        return 0, {}

    def match(self, request: Request) -> Match:
        """What the prefix cache has of a request's context."""
        hit = self.find(request)
        if not hit.tokens:
            return NO_MATCH
        blocks = [block for group in hit.groups for copies in group.values() for block in copies]
        return Match(hit.tokens, len(blocks), sum(not block.holders for block in blocks))

    # Who comes.

    def exported(self, start_tokens: int, end_tokens: int, prompt_end_tokens: int) -> int:
        """How many states of a table such an iteration keeps besides its last (0 or 1)."""
        return max(group.exported(start_tokens, end_tokens, prompt_end_tokens) for group in self.groups)

    def lacking(self, hit: Hit, tokens: int, exported: int = 0, *, whole: bool = False) -> int | None:
        """Blocks that are short for a newcomer's first ``tokens`` tokens, below 1 if none; None: it waits for a state.

        ``whole``: if they are computed piece by piece, and it lets go of what its windows have passed.
        """
        needed = 0
        for at, group in enumerate(self.groups):
            found = hit.groups[at]
            if group.kind == "state" and any((at, copies[0].name) in self._fresh for copies in found.values()):
                return None
            blocks = -(-tokens // group.block_tokens)
            most = self._windows[at]
            if whole and most is not None:
                blocks = min(blocks, most)
            needed += group.count * group.new_blocks(max(blocks - hit.tokens // group.block_tokens, 0), exported)
            needed += sum(not block.holders for copies in found.values() for block in copies)
        return needed - self.free

    def pending_passes(self, request: Request, tokens: int) -> int:
        """Blocks, at most, that a request of so many tokens is to free once none of them is looked at."""
        held: _Held = request.held
        return sum(
            group.count * max(group.passed_blocks(tokens) - held.tables[at].first, 0) for at, group in self._forgetting
        )

    def admit(self, request: Request, hit: Hit) -> None:
        """Let a newcomer hold what was found of it."""
        held = request.held = _Held(request, hit.parting_tokens, len(self.groups))
        for group, table, found in zip(self.groups, held.tables, hit.groups, strict=True):
            table.first = group.passed_blocks(hit.tokens)
            table.end = table.hashed = hit.tokens // group.block_tokens
            table.named = dict(found)
            table.states = list(found) if group.kind == "state" else []
            for copies in found.values():
                for block in copies:
                    if not block.holders:
                        del self._queue[block]
                        self.free -= 1
                    block.holders += 1

    def settle(self, request: Request, tokens: int) -> None:
        """Let a request that comes with its KV, of so many tokens, have what they take."""
        self.admit(request, Hit(0, 0, tuple({} for _ in self.groups)))
        held: _Held = request.held
        for group, table in zip(self.groups, held.tables, strict=True):
            table.end = -(-tokens // group.block_tokens)
            table.first = group.passed_blocks(tokens)
            if group.kind == "state":
                table.states = [table.end - 1]
        self.take(sum(group.held_blocks(tokens) for group in self.groups))

    # Who goes on.

    def parting_tokens(self, request: Request) -> int:
        """Where a running request's prompt parts from others, as was seen when it came; 0 for nowhere."""
        held: _Held = request.held
        return held.parting_tokens

    def extend(self, request: Request, tokens: int, *, done_tokens: int, known_tokens: int, exported: int = 0) -> bool:
        """Let a request have ``tokens`` tokens; False if blocks are short.

        ``done_tokens``: those that no iteration under way computes or looks at; the blocks that they have passed are
        free in any case. ``known_tokens``: those that others may find from now on, 0 for no more than before.
        ``exported``: states that are kept besides the last.
        """
        held: _Held = request.held
        tables = held.tables
        for at, group in self._forgetting:
            self._pass(group, tables[at], group.passed_blocks(done_tokens))
        needed = 0
        ends = []
        for group, table in zip(self.groups, tables, strict=True):
            end = -(-tokens // group.block_tokens)
            ends.append(end)
            if end > table.end:
                needed += group.count * group.new_blocks(end - table.end, exported)
        if needed > self.free:
            return False
        if needed:
            self.take(needed)
            for group, table, end in zip(self.groups, tables, ends, strict=True):
                if end > table.end:
                    if group.kind == "state":
                        table.states += range(max(end - 1 - exported, table.end), end)
                    table.end = end
        if known_tokens:
            self.computed(request, known_tokens)
        return True

    def next_change(self, request: Request, tokens: int, lag_tokens: int) -> int:
        """How many tokens a decoding request of ``tokens`` tokens may grow until its blocks change; at least 1.

        ``lag_tokens``: how many of its tokens are under way whenever it grows.
        """
        held: _Held = request.held
        changes = []
        if held.names and self.hashes_answers:
            hashed = held.tables[0].hashed * self.groups[0].block_tokens
            changes.append(hashed + self.align_tokens - 1 + lag_tokens - tokens)
        for group, table in zip(self.groups, held.tables, strict=True):
            size = group.block_tokens
            changes.append(table.end * size - tokens)
            if group.kind == "window":
                changes.append((table.first + 1) * size + group.window_tokens - 1 + lag_tokens - tokens)
            elif group.kind == "chunk":
                chunk = group.window_tokens
                changes.append(-(-(table.first + 1) * size // chunk) * chunk + lag_tokens - tokens)
            elif table.states:
                changes.append((table.states[0] + 1) * size + 1 + lag_tokens - tokens)
        return max(min(changes), 1)

    def _pass(self, group: KVGroup, table: _Table, blocks: int) -> None:
        """Free the blocks before a place."""
        blocks = min(blocks, table.end)
        if group.kind == "state":
            passed = [place for place in table.states if place < blocks]
            if passed:
                del table.states[: len(passed)]
                self._free(group, table, passed[::-1])
        elif blocks > table.first:
            first, table.first = table.first, blocks
            self._free(group, table, range(blocks - 1, first - 1, -1))

    def _free(self, group: KVGroup, table: _Table, places: Sequence[int]) -> None:
        """Let go of blocks, in this order."""
        if not table.named:
            self.give(group.count * len(places))
            return
        named = [table.named.pop(place, None) for place in places]
        self.give(group.count * named.count(None))
        for at in range(group.count):
            for copies in named:
                if copies is not None:
                    block = copies[at]
                    block.holders -= 1
                    if not block.holders:
                        self.free += 1
                        self._queue[block] = None

    # What is hashed.

    def answers(self, request: Request, hashed_tokens: Callable[[Request], int]) -> None:
        """Note that a request decodes; its answer's blocks are hashed when somebody looks for them, or at its end."""
        held: _Held = request.held
        hashed = held.tables[0].hashed * self.groups[0].block_tokens // self.block_tokens
        for keys in request.block_keys:
            if len(keys) > hashed:
                self._answering.setdefault(keys.start, {})[request.index] = request, hashed_tokens
            hashed = max(hashed - len(keys), 0)

    def _catch_up(self, request: Request) -> None:
        """Hash what decoding requests have by now of the runs that a request has blocks of."""
        if self._answering:
            for keys in request.block_keys:
                for other, hashed_tokens in self._answering.get(keys.start, {}).values():
                    if other is not request:
                        self._hash(other.held, hashed_tokens(other))

    def computed(self, request: Request, tokens: int) -> None:
        """Hash what is full now and may be found again, behind what others had before."""
        self._catch_up(request)
        self._hash(request.held, tokens)

    def _hash(self, held: _Held, tokens: int) -> None:
        if not held.names:
            return
        tokens = self._aligned(tokens)
        for at, (group, table) in enumerate(zip(self.groups, held.tables, strict=True)):
            end = tokens // group.block_tokens
            stride = group.block_tokens // self.block_tokens
            for place in self._kept(group, held, table.hashed, end):
                is_held = place in table.states if group.kind == "state" else table.first <= place
                if is_held and place not in table.named:
                    self._name(at, table, place, held.names[(place + 1) * stride - 1])
            table.hashed = max(table.hashed, end)
            if group.kind == "state" and end - 1 in table.named and tokens == self._aligned(held.resume_tokens[0]):
                # As vLLM, which hashes the prompt's last state again as long as it is held.
                self._fresh.add((at, table.named[end - 1][0].name))

    def _aligned(self, tokens: int) -> int:
        return tokens // self.align_tokens * self.align_tokens

    def _kept(self, group: KVGroup, held: _Held, start: int, end: int) -> Iterable[int]:
        """Which of a table's blocks ``[start, end)`` are cached."""
        if group.kind in ("full", "chunk"):
            return range(start, end)
        needed = group.hit_blocks if group.kind == "window" else 1
        return self._tails(group, held.resume_tokens, needed, start, end)

    def _tails(
        self, group: KVGroup, resume_tokens: tuple[int, ...], needed: int, start: int, end: int
    ) -> Iterator[int]:
        for tokens in resume_tokens:
            last = self._aligned(tokens) // group.block_tokens
            yield from range(max(start, last - needed), min(end, last))

    def _name(self, at: int, table: _Table, place: int, name: int) -> None:
        copies = tuple(_Block(at, number, name) for number in range(self.groups[at].count))
        table.named[place] = copies
        for block, found in zip(copies, self._found[at], strict=True):
            alike = found.get(name)
            if alike is None:
                found[name] = [block]
                self._note(block, stored=True)
            else:
                alike.append(block)
        if self.groups[at].kind == "state":
            self._fresh.add((at, name))

    # Who leaves.

    def release(self, request: Request, tokens: int, hashed_tokens: int) -> None:
        """Take back all blocks of a request, group by group, each from the last; ``tokens`` are in its tables."""
        held: _Held = request.held
        self.computed(request, hashed_tokens)
        for keys in request.block_keys:
            decoding = self._answering.get(keys.start, {})
            if decoding.pop(request.index, None) is not None and not decoding:
                del self._answering[keys.start]
        for group, table in zip(self.groups, held.tables, strict=True):
            places = table.states[::-1] if group.kind == "state" else range(table.end - 1, table.first - 1, -1)
            self._free(group, table, places)
        request.held = None

    # Invariants.

    def violations(self) -> list[str]:
        """What of the pool's invariants does not hold."""
        found = super().violations()
        queued = self._front + len(self._queue)
        if queued != self.free:
            found.append(f"E2: {queued} blocks are in line to be taken, {self.free} are free")
        hashed = [block for group in self._found for names in group for alike in names.values() for block in alike]
        if any((block.holders == 0) != (block in self._queue) for block in hashed):
            found.append("E2: a hashed block is in line to be taken while it is held, or nowhere")
        return found


_FINDERS: dict[str, Callable[[GroupedPool, int, Sequence[int], int], tuple[int, _Places]]] = {
    "full": GroupedPool._find_full,
    "window": GroupedPool._find_window,
    "chunk": GroupedPool._find_chunk,
    "state": GroupedPool._find_state,
}


def _names(request: Request) -> Sequence[int]:
    """The names of a request's full blocks, one by one."""
    if request.held is not None:
        held: _Held = request.held
        return held.names
    keys = request.block_keys
    return keys[0] if len(keys) == 1 else tuple(chain.from_iterable(keys))
