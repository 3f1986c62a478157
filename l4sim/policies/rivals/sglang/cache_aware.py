"""SGLang's `cache_aware`: where the prompt's prefix was sent before, unless load is too uneven.

Follows `cache_aware.rs` of `sgl-router`: a request goes to the instance whose prompts so far match more than 0.3 of its
own, else to the one with the smallest tree; where the requests outstanding are imbalanced, to the shortest queue.
Every request is entered in the tree, and every 120 s each instance's tree is cut down to 2^26 characters. Departures:

- Prefix blocks rather than characters are matched (see `prefix_tree`); a request without block ids matches nothing.
- Where several instances match alike, or have equal trees, the source takes whichever its hash map yields first; here
  it is the one that was sent the prefix first, or the first instance.
- The tree is cut at the first arrival after the 120 s, which no arrival can tell from a timer.

`sgl-model-gateway`, the router's later name, sends a request without a match to the least loaded instance instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from l4sim.policies.rivals.sglang.balance import CHARACTERS_PER_TOKEN, is_imbalanced
from l4sim.policies.rivals.sglang.prefix_tree import PrefixTree
from l4sim.policies.views import InstanceView, RequestView


class CacheAware:
    """Routes by prefix affinity."""

    def __init__(
        self,
        instances: int,
        prefix_id_tokens: int,
        *,
        cache_threshold: float = 0.3,
        balance_abs_threshold: int = 64,
        balance_rel_threshold: float = 1.5,
        eviction_interval_s: float = 120.0,
        max_tree_tokens: int = 2**26 // CHARACTERS_PER_TOKEN,
    ) -> None:
        """``prefix_id_tokens``: prompt tokens that one of a request's prefix ids stands for."""
        self.tree = PrefixTree(instances, prefix_id_tokens)
        self._cache_threshold = cache_threshold
        self._balance_abs_threshold = balance_abs_threshold
        self._balance_rel_threshold = balance_rel_threshold
        self._eviction_interval_s = eviction_interval_s
        self._max_tree_tokens = max_tree_tokens
        self._evictions = 0
        self._numbers = list(range(instances))
        """Of the instances that take requests, in order."""

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position that probably has most of the prompt cached, or another where that would not do."""
        self._evict(instances[0].as_of_s)
        position = self._choose(request, instances)
        self.tree.insert(request.prefix_ids, request.prompt_tokens, instances[position].instance)
        return position

    def _choose(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        loads = [view.running + view.waiting for view in instances]
        if is_imbalanced(loads, self._balance_abs_threshold, self._balance_rel_threshold):
            return loads.index(min(loads))
        matched_tokens, matching = self.tree.match(request.prefix_ids)
        numbers = self._numbers if len(instances) == len(self._numbers) else [view.instance for view in instances]
        if (
            matching is not None
            and matching in numbers
            and matched_tokens > self._cache_threshold * request.prompt_tokens
        ):
            return numbers.index(matching)
        sizes_tokens = [self.tree.sizes_tokens[instance] for instance in numbers]
        return sizes_tokens.index(min(sizes_tokens))

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone, and what they had cached with them, or joined (`remove_worker`, `add_worker`)."""
        for instance in set(self._numbers) - set(numbers):
            self.tree.remove(instance)
        for instance in set(numbers) - set(self._numbers):
            self.tree.add(instance)
        self._numbers = list(numbers)

    def _evict(self, now_s: float) -> None:
        due = int(now_s / self._eviction_interval_s)
        if due > self._evictions:
            self._evictions = due
            self.tree.evict(self._max_tree_tokens)
