"""Which prefix blocks each instance probably caches: those it was sent last, or those that its KV events name."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence

_NOBODY: frozenset[int] = frozenset()


def leading(holders: Mapping[int, Collection[int]], ids: Sequence[int]) -> dict[int, int]:
    """How many leading ids each instance has, by its number; who has none is left out.

    ``holders``: who has an id; whoever does is taken to have those before it too.
    """
    depths: dict[int, int] = {}
    here = holders.get(ids[0], _NOBODY) if ids else _NOBODY
    depth = 0
    while here:
        most = len(here)
        depth = bisect_left(ids, True, lo=depth, key=lambda block: len(holders.get(block, _NOBODY)) < most)
        following = holders.get(ids[depth], _NOBODY) if depth < len(ids) else _NOBODY
        depths.update(dict.fromkeys(set(here).difference(following), depth))
        here = following
    return depths


class BlockLRU:
    """Prefix ids by instance, the least recently used forgotten beyond a number of them.

    Who has an id is taken to have those before it too, as engines evict the tail of a prompt first.
    """

    def __init__(self, capacity: int | None) -> None:
        """``capacity``: ids that are remembered of one instance; None: whatever is not removed."""
        self._capacity = capacity
        self._used: dict[int, OrderedDict[int, None]] = {}
        """Ids by instance number, least recently used first."""
        self._holders: dict[int, frozenset[int]] = {}
        """Numbers of the instances that have an id; of one alone the set that all its ids have in common."""
        self._alone: dict[int, frozenset[int]] = {}

    def depths(self, ids: Sequence[int]) -> dict[int, int]:
        """How many leading ids each instance has, by its number; who has none is left out."""
        return leading(self._holders, ids)

    def use(self, instance: int, ids: Iterable[int]) -> None:
        """An instance has, or is sent, these ids; the last one counts as used last."""
        used = self._used.setdefault(instance, OrderedDict())
        blocks = list(ids)
        new = [block for block in blocks if block not in used]
        if self._capacity is None:
            used.update(dict.fromkeys(new))
            self._hold(instance, new)
            return
        if len(new) < len(blocks):
            for block in blocks:
                used[block] = None
                used.move_to_end(block)
        else:
            used.update(dict.fromkeys(new))
        self._hold(instance, new)
        while len(used) > self._capacity:
            self._let_go(instance, used.popitem(last=False)[0])

    def _hold(self, instance: int, new: Sequence[int]) -> None:
        holders = self._holders
        alone = self._alone.setdefault(instance, frozenset((instance,)))
        shared = [block for block in new if block in holders]
        for block in shared:
            holders[block] = holders[block] | alone
        if len(shared) < len(new):
            holders.update(dict.fromkeys([block for block in new if block not in holders], alone))

    def remove(self, instance: int, ids: Iterable[int]) -> None:
        """An instance has these ids no more."""
        used = self._used.get(instance, OrderedDict[int, None]())
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
        if len(holders) == 1:
            del self._holders[block]
        else:
            self._holders[block] = holders - {instance}
