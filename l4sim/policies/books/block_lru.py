"""Which prefix blocks each instance probably caches: those it was sent last, or those that its KV events name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

_NOBODY: frozenset[int] = frozenset()


class BlockLRU:
    """Prefix ids by instance, the least recently used forgotten beyond a number of them."""

    def __init__(self, capacity: int | None) -> None:
        """``capacity``: ids that are remembered of one instance; None: whatever is not removed."""
        self._capacity = capacity
        self._used: dict[int, OrderedDict[int, None]] = {}
        """Ids by instance number, least recently used first."""
        self._holders: dict[int, set[int]] = {}
        """Numbers of the instances that have an id."""

    def depths(self, ids: Sequence[int]) -> dict[int, int]:
        """How many leading ids each instance has, by its number; who has none is left out."""
        depths: dict[int, int] = {}
        here: set[int] | frozenset[int] = self._holders.get(ids[0], _NOBODY) if ids else _NOBODY
        depth = 0
        while here:
            depth += 1
            following = self._holders.get(ids[depth], _NOBODY) if depth < len(ids) else _NOBODY
            if not here <= following:
                depths.update(dict.fromkeys(here - following, depth))
            here = here & following
        return depths

    def use(self, instance: int, ids: Iterable[int]) -> None:
        """An instance has, or is sent, these ids; the last one counts as used last."""
        used = self._used.setdefault(instance, OrderedDict())
        for block in ids:
            if block in used:
                used.move_to_end(block)
            else:
                used[block] = None
                self._holders.setdefault(block, set()).add(instance)
        while self._capacity is not None and len(used) > self._capacity:
            self._let_go(instance, used.popitem(last=False)[0])

    def remove(self, instance: int, ids: Iterable[int]) -> None:
        """An instance has these ids no more."""
        used = self._used.get(instance, {})
        for block in ids:
            if block in used:
                del used[block]
                self._let_go(instance, block)

    def keep_only(self, numbers: Sequence[int]) -> None:
        """Forget all instances but these."""
        for instance in set(self._used) - set(numbers):
            for block in self._used.pop(instance):
                self._let_go(instance, block)

    def _let_go(self, instance: int, block: int) -> None:
        holders = self._holders[block]
        holders.discard(instance)
        if not holders:
            del self._holders[block]
