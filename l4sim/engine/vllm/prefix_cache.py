"""Automatic prefix caching: blocks outlive their requests until they are evicted, least recently used first.

After vLLM V1's block pool, with three simplifications, all in favour of traces with long prompts: (1) hits are tracked
in the trace's own hash blocks (512 tokens for Mooncake), not in engine blocks; (2) generated tokens are found again
only by the request that made them, after a preemption, since a trace does not tell their hashes; (3) a prompt's last
token is always computed, yet the block that it lies in is not duplicated.
"""

from __future__ import annotations

from collections import OrderedDict

from l4sim.engine.blocks import NO_MATCH, BlockPool, Match, blocks_for
from l4sim.engine.request import Request


class PrefixCachingPool(BlockPool):
    """Blocks with content: a queue of idle entries in order of eviction, and the shared entries by hash.

    An entry is one of three: a *shared* prefix block (its hash id, >= 0, all its engine blocks evicted together); the
    *own* blocks of a preempted request (evicted from the tail); *blank* blocks whose content nobody can ask for. Own
    and blank entries have keys below 0.
    """

    def __init__(self, total: int, block_tokens: int, hash_block_tokens: int) -> None:
        """``hash_block_tokens`` is a multiple of ``block_tokens``."""
        super().__init__(total, block_tokens)
        self._hash_block_tokens = hash_block_tokens
        self._blocks_per_id = hash_block_tokens // block_tokens
        self._holders: dict[int, int] = {}
        """Shared entries by id: how many requests hold each."""
        self._blank_keys: set[int] = {-1}
        self._idle: OrderedDict[int, int] = OrderedDict({-1: total})
        """Blocks of each idle entry, next to be evicted first; together they are `free`."""
        self._last_key = -1

    def _new_key(self) -> int:
        self._last_key -= 1
        return self._last_key

    def _append_blank(self, blocks: int) -> None:
        if not blocks:
            return
        last = next(reversed(self._idle), 0)
        if last in self._blank_keys:
            self._idle[last] += blocks
            return
        key = self._new_key()
        self._blank_keys.add(key)
        self._idle[key] = blocks

    def take(self, blocks: int) -> None:
        """Take free blocks, evicting what was used longest ago."""
        super().take(blocks)
        idle = self._idle
        while blocks:
            key = next(iter(idle))
            there = idle[key]
            if key >= 0:
                del idle[key], self._holders[key]
                if there > blocks:
                    # A shared entry is of no use in part: what is left of it is blank, and next in line.
                    key = self._new_key()
                    self._blank_keys.add(key)
                    idle[key] = there - blocks
                    idle.move_to_end(key, last=False)
            elif there > blocks:
                idle[key] = there - blocks
            else:
                del idle[key]
                self._blank_keys.discard(key)
            blocks -= min(there, blocks)

    def give(self, blocks: int) -> None:
        """Give back blocks whose content is of no further use."""
        super().give(blocks)
        self._append_blank(blocks)

    def match(self, request: Request) -> Match:
        """The leading shared entries of the prompt, and behind them what the request itself left when preempted."""
        holders = self._holders
        ids = request.prefix_ids
        hits = 0
        idle = 0
        for key in ids:
            holding = holders.get(key)
            if holding is None:
                break
            hits += 1
            idle += holding == 0
        blocks = hits * self._blocks_per_id
        idle *= self._blocks_per_id
        if hits == len(ids) and request.own_blocks_key:
            own = self._idle.get(request.own_blocks_key, 0)
            blocks += own
            idle += own
        if not blocks:
            return NO_MATCH
        # vLLM: at least one token is computed, so that there is something to sample from.
        most = (request.total_tokens - 1) // self.block_tokens * self.block_tokens
        return Match(min(blocks * self.block_tokens, most), blocks, idle, ids[:hits])

    def hold(self, request: Request, match: Match) -> None:
        """Let a request hold the blocks it matched."""
        for key in match.ids:
            holding = self._holders[key]
            if not holding:
                del self._idle[key]
            self._holders[key] = holding + 1
        request.held_ids.extend(match.ids)
        # Own blocks that did not match are gone: they are evicted before the prefix that they follow.
        if match.blocks > len(match.ids) * self._blocks_per_id:
            del self._idle[request.own_blocks_key]
        request.own_blocks_key = 0
        self.free -= match.idle_blocks

    def computed(self, request: Request, tokens: int) -> None:
        """Share the hash blocks that are now complete, so that other requests hit them from here on."""
        held = request.held_ids
        for key in request.prefix_ids[len(held) : tokens // self._hash_block_tokens]:
            if key in self._holders:
                # Another request computed the same prefix at the same time: ours and what follows stays private.
                break
            self._holders[key] = 1
            held.append(key)

    def release(self, request: Request, tokens: int, *, resumable: bool) -> None:
        """Take back all blocks of a request, the tail of its context to be evicted first."""
        held_blocks = len(request.held_ids) * self._blocks_per_id
        own = tokens // self.block_tokens - held_blocks
        private = blocks_for(tokens, self.block_tokens) - held_blocks
        self.free += private
        if resumable and own > 0 and len(request.held_ids) == len(request.prefix_ids):
            self._append_blank(private - own)
            request.own_blocks_key = self._new_key()
            self._idle[request.own_blocks_key] = own
        else:
            self._append_blank(private)
        for key in reversed(request.held_ids):
            holding = self._holders[key] - 1
            self._holders[key] = holding
            if not holding:
                self._idle[key] = self._blocks_per_id
                self.free += self._blocks_per_id
        request.held_ids.clear()

    def violations(self) -> list[str]:
        """What of the pool's invariants does not hold."""
        found = super().violations()
        idle = sum(self._idle.values())
        if idle != self.free:
            found.append(f"E2: {idle} blocks are in line to be evicted, {self.free} are free")
        shared = {key for key in (*self._holders, *self._idle) if key >= 0}
        if any((self._holders.get(key, -1) == 0) != (key in self._idle) for key in shared):
            found.append("E2: a shared block is in line to be evicted while it is held, or nowhere")
        return found
