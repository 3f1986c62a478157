"""One radix tree of the prompts sent to every instance: what each one's prefix cache probably holds.

After `tree.rs` of SGLang's gateway 0.3.2, a multi-tenant radix tree whose tenants are the workers. The source's edges
are text; here they are hash ids of prefix blocks, each of which stands for its block *and all before it*. So two
prompts agree up to some id and nowhere after it, and the length of their common prefix is found by bisection.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from types import MappingProxyType
from typing import NamedTuple


class _Node:
    """An edge of the tree and what is below it."""

    __slots__ = ("children", "ids", "last_access", "parent", "tokens")

    def __init__(self, ids: tuple[int, ...], tokens: int, parent: _Node | None) -> None:
        self.ids = ids
        self.tokens = tokens
        self.parent = parent
        self.children: dict[int, _Node] = {}
        """By their first id."""
        self.last_access: dict[int, int] = {}
        """The instances that were sent this, and when last (a count of accesses); the first sent comes first."""

    def is_leaf_of(self, instance: int) -> bool:
        """Whether nothing below was sent to the instance."""
        return instance in self.last_access and not any(instance in c.last_access for c in self.children.values())


class Held(NamedTuple):
    """The longest prefix that is in the tree."""

    tokens: int
    by: Mapping[int, int]
    """The instances that were sent it, the first sent first; empty where nothing matches. To be read, not kept."""


_NOTHING = Held(0, MappingProxyType({}))


class RadixTree:
    """Prompts by prefix, and how many tokens of them each instance was sent."""

    def __init__(self, instances: int, id_tokens: int) -> None:
        """``id_tokens``: prompt tokens that one prefix id stands for."""
        self.sizes_tokens = [0] * instances
        """Tokens in the tree, by instance."""
        self._id_tokens = id_tokens
        self._root = _Node((), 0, None)
        self._accesses = 0
        self._tails = 0

    def add(self, instance: int) -> None:
        """Make room for an instance that has been sent nothing yet."""
        self.sizes_tokens += [0] * (instance + 1 - len(self.sizes_tokens))

    def match(self, prefix_ids: Sequence[int]) -> Held:
        """The longest prefix that any instance was sent; for its first holder that counts as a use."""
        ids = tuple(prefix_ids)
        node, matched = self._root, 0
        while matched < len(ids):
            child = node.children.get(ids[matched])
            if child is None:
                break
            shared = _shared(child.ids, ids, matched)
            node, matched = child, matched + shared
            if shared < len(child.ids):
                break
        if not node.last_access:
            return _NOTHING
        self._touch(node, next(iter(node.last_access)))
        return Held(matched * self._id_tokens, node.last_access)

    def depths(self, prefix_ids: Sequence[int]) -> dict[int, int]:
        """Tokens of the prompt that each instance was sent before, by its number; who was sent none is left out."""
        ids = tuple(prefix_ids)
        node, matched = self._root, 0
        depths: dict[int, int] = {}
        while matched < len(ids):
            child = node.children.get(ids[matched])
            if child is None:
                break
            shared = _shared(child.ids, ids, matched)
            node, matched = child, matched + shared
            depths.update(dict.fromkeys(node.last_access, matched * self._id_tokens))
            if shared < len(child.ids):
                break
        return depths

    def insert(self, prefix_ids: Sequence[int], prompt_tokens: int, instance: int) -> None:
        """Note that the instance is sent a prompt; tokens behind the last id are taken for unlike any other's."""
        rest = prompt_tokens - len(prefix_ids) * self._id_tokens
        ids = tuple(prefix_ids)
        if rest > 0:
            self._tails += 1
            ids += (-self._tails,)
        node, done = self._root, 0
        while done < len(ids):
            child = node.children.get(ids[done])
            if child is None:
                tokens = prompt_tokens - done * self._id_tokens
                child = node.children[ids[done]] = _Node(ids[done:], tokens, node)
                done = len(ids)
            else:
                shared = _shared(child.ids, ids, done)
                if shared < len(child.ids):
                    child = self._split(child, shared)
                done += shared
            if instance not in child.last_access:
                self.sizes_tokens[instance] += child.tokens
                child.last_access[instance] = 0
            node = child
        self._touch(node, instance)

    def evict_together(self, max_tokens: int) -> None:
        """Let all forget their least recently used leaves until together they have at most ``max_tokens``."""
        self._evict(lambda instance: sum(self.sizes_tokens) > max_tokens)

    def evict(self, max_tokens: int) -> None:
        """Let each instance forget its least recently used leaves until it has at most ``max_tokens``."""
        self._evict(lambda instance: self.sizes_tokens[instance] > max_tokens)

    def _evict(self, too_large: Callable[[int], bool]) -> None:
        queue: list[tuple[int, int, _Node]] = []
        stack = [self._root]
        while stack:
            node = stack.pop()
            stack.extend(node.children.values())
            if node is not self._root:
                leaf_of = [i for i in node.last_access if too_large(i) and node.is_leaf_of(i)]
                queue.extend((node.last_access[i], i, node) for i in leaf_of)
        heapify(queue)
        while queue:
            _, instance, node = heappop(queue)
            if not too_large(instance):
                continue
            self.sizes_tokens[instance] -= node.tokens
            del node.last_access[instance]
            parent = node.parent
            assert parent is not None
            if not node.last_access:
                del parent.children[node.ids[0]]
            if parent is not self._root and parent.is_leaf_of(instance):
                heappush(queue, (parent.last_access[instance], instance, parent))

    def remove(self, instance: int) -> None:
        """Forget all that an instance was sent."""
        self.sizes_tokens[instance] = 0
        stack = [self._root]
        while stack:
            node = stack.pop()
            # What an instance was sent it was sent from the root on: below a node without it there is nothing of it.
            for child in [child for child in node.children.values() if instance in child.last_access]:
                del child.last_access[instance]
                if child.last_access:
                    stack.append(child)
                else:
                    del node.children[child.ids[0]]

    def _touch(self, node: _Node, instance: int) -> None:
        self._accesses += 1
        at: _Node | None = node
        while at is not None and at is not self._root:
            at.last_access[instance] = self._accesses
            at = at.parent

    def _split(self, node: _Node, shared: int) -> _Node:
        """Part a node after ``shared`` of its ids; returns the upper part."""
        parent = node.parent
        assert parent is not None
        upper = _Node(node.ids[:shared], shared * self._id_tokens, parent)
        upper.last_access = dict(node.last_access)
        upper.children[node.ids[shared]] = node
        parent.children[node.ids[0]] = upper
        node.ids, node.tokens, node.parent = node.ids[shared:], node.tokens - upper.tokens, upper
        return upper


def _shared(edge: tuple[int, ...], ids: tuple[int, ...], start: int) -> int:
    """How many ids of an edge agree with ``ids`` from ``start`` on; the first does."""
    most = min(len(edge), len(ids) - start)
    if edge[most - 1] == ids[start + most - 1]:
        return most
    return bisect_left(range(most), True, key=lambda i: edge[i] != ids[start + i])
