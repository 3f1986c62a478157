"""`cache_aware` as SGLang's gateway 0.3.2 and vLLM's router 0.1.17 have it, which differ in two figures.

Follows `sgl-model-gateway/src/policies/cache_aware.rs` (SGLang's gateway 0.3.2) and `src/policies/cache_aware.rs` of
vllm-project/router. A request goes where more than 0.3 of its prompt was sent before, else to the instance with the
fewest requests in flight, and always there where requests in flight are imbalanced. Every request is entered in the
tree, which is cut down from time to time. Departures:

- Prefix blocks rather than characters are matched (see `l4sim.policies.books.radix_tree`); a request without block ids
  matches nothing.
- Where several instances hold the same prefix the source takes whichever its hash map yields first; here it is the one
  that was sent the prefix first.
"""

from __future__ import annotations

from collections.abc import Sequence

from l4sim.policies.books.in_flight import InFlight
from l4sim.policies.books.radix_tree import RadixTree
from l4sim.policies.rivals.balance import CHARACTERS_PER_TOKEN, is_imbalanced, least_loaded
from l4sim.policies.views import InstanceView, RequestView

SGLANG_EVICTION_S, SGLANG_TREE_TOKENS = 60.0, 2**26 // CHARACTERS_PER_TOKEN
"""`--eviction-interval-secs 60 --max-tree-size 67108864` (characters): the defaults of sglang-router 0.3.2."""
VLLM_EVICTION_S, VLLM_TREE_TOKENS = 120.0, 2**25
"""The defaults of vllm-router 0.1.17, whose tree is of tokens: it asks workers to tokenize."""


class CacheAware:
    """Routes by prefix affinity."""

    def __init__(
        self,
        instances: int,
        prefix_id_tokens: int,
        *,
        eviction_interval_s: float = SGLANG_EVICTION_S,
        max_tree_tokens: int = SGLANG_TREE_TOKENS,
        cache_threshold: float = 0.3,
        balance_abs_threshold: int = 64,
        balance_rel_threshold: float = 1.5,
    ) -> None:
        """``prefix_id_tokens``: prompt tokens that one of a request's prefix ids stands for."""
        self.tree = RadixTree(instances, prefix_id_tokens)
        self.in_flight = InFlight(instances)
        self.timers = {"evict": eviction_interval_s}
        self._cache_threshold = cache_threshold
        self._balance_abs_threshold = balance_abs_threshold
        self._balance_rel_threshold = balance_rel_threshold
        self._max_tree_tokens = max_tree_tokens

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position that probably has most of the prompt cached, or another where that would not do."""
        position = self.candidates(request, instances)[0]
        self.send(request, instances[position].instance)
        return position

    def candidates(self, request: RequestView, instances: Sequence[InstanceView]) -> list[int]:
        """The positions that are equal under the rule, that which is taken in front."""
        loads = self.in_flight.of(instances)
        if not is_imbalanced(loads, self._balance_abs_threshold, self._balance_rel_threshold):
            held = self.tree.match(request.prefix_ids)
            if held.tokens > self._cache_threshold * request.prompt_tokens:
                position = self.in_flight.among(instances)
                holders = [position[instance] for instance in held.by if instance in position]
                if holders:
                    return holders
        rows, sent_ever = self.in_flight.rows(instances), self.in_flight.sent_ever
        return least_loaded(loads, sent_ever if isinstance(rows, range) else [sent_ever[row] for row in rows])

    def send(self, request: RequestView, instance: int) -> None:
        """Note that a request is sent to an instance."""
        self.tree.insert(request.prefix_ids, request.prompt_tokens, instance)
        self.in_flight.send(request.request, instance)

    def ended(self, request: int, now_s: float) -> None:
        """One less is in flight."""
        self.in_flight.end(request)

    def tick(self, name: str, now_s: float) -> None:
        """Cut every instance's tree down to its size."""
        self.tree.evict(self._max_tree_tokens)

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone, and what they had cached with them, or joined (`remove_worker`, `add_worker`)."""
        for instance in set(self.in_flight.numbers) - set(numbers):
            self.tree.remove(instance)
        for instance in set(numbers) - set(self.in_flight.numbers):
            self.tree.add(instance)
        self.in_flight.follow(numbers)
