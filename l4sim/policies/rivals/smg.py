"""The Shepherd Model Gateway 1.13: `cache_aware`, `power_of_two` and `least_load`, which share one score.

Follows `model_gateway/src/policies/{cache_aware,power_of_two,least_load}.rs` of lightseekorg/smg, and what smg 1.13.0
logs of its decisions (``--log-level debug``; a score that the sources do not tell has been read from there):

- *Expected wait* of an instance: requests outstanding, at 1,024 tokens each, over 2,000 tokens/s, and 0.15 k / (1 - k)
  where k of its KV cache is in use. Outstanding are those in flight, or, if more, those that it reported plus those
  sent to it since. Reports are polled every 10 s. Who has not reported yet is taken for the best of those who have,
  with what is in flight there on top. Ties at random.
- `cache_aware`: of the instances that were sent more than 0.3 of the prompt, and are not overloaded, that with the
  least expected wait; if all are overloaded, of all others that are not; where nothing matches, of all. Overloaded is
  who has more than 1.5 times the fleet's mean in flight and is a margin above it: 64 requests or, if less, two standard
  deviations of a Poisson count with that mean, at least 4 (as observed: the source's margin changes from version to
  version). One tree is shared by all, cut down to 2^26 characters every 60 s.
- `power_of_two`: of two random instances the one with the shorter expected wait. `least_load`: of all.

Departures: HTTP workers that report neither queued tokens nor a throughput, as vLLM behind smg; gRPC workers and KV
events are not modelled. The instances that are there at the start have reported. Prefix blocks rather than characters
are matched: where prompts differ within a block, smg still tells them apart by the next character.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from l4sim.policies.books.in_flight import InFlight
from l4sim.policies.books.radix_tree import RadixTree
from l4sim.policies.rivals.balance import CHARACTERS_PER_TOKEN
from l4sim.policies.views import InstanceView, RequestView

POLL_S = 10.0
"""`load_check_interval_secs`."""
_EVICTION_S = 60.0
_TREE_TOKENS = 2**26 // CHARACTERS_PER_TOKEN
_MEAN_PREFILL_TOKENS = 1024
_KV_PRESSURE_S = 0.15
_THROUGHPUT_TOKENS_PER_S = 2000.0
"""Where workers report none."""
_LEAST_MARGIN = 4.0
_MARGIN_SIGMAS = 2.0


class ExpectedWait:
    """smg's score, and the books that it needs."""

    def __init__(self, instances: int, *, throughput_tokens_per_s: float = _THROUGHPUT_TOKENS_PER_S) -> None:
        self.in_flight = InFlight(instances)
        self.silent: set[int] = set()
        """Which instances have not reported yet, by position in `in_flight.numbers`."""
        self._request_s = _MEAN_PREFILL_TOKENS / throughput_tokens_per_s
        self._reported = [0] * instances
        """Requests running and waiting when the instance reported last."""
        self._kv_s = [0.0] * instances
        self._since = [0] * instances
        """Requests sent to it since."""
        self._waits_s = [0.0] * instances
        """The scores, kept up to date."""
        self._unread: set[int] = set()
        """Positions whose last report has not been looked at."""

    def of(self, instances: Sequence[InstanceView]) -> list[float]:
        """Expected waits in seconds, by position; where nobody has reported, requests in flight."""
        rows = self.in_flight.rows(instances)
        if self._unread:
            self._read(rows, instances)
        if self.silent:
            return self._with_silent(rows)
        waits = self._waits_s
        return waits if isinstance(rows, range) else [waits[row] for row in rows]

    def _with_silent(self, rows: Sequence[int]) -> list[float]:
        loads, waits = self.in_flight.counts, self._waits_s
        best = min((waits[row] for row in rows if row not in self.silent), default=None)
        if best is None:
            return [loads[row] for row in rows]
        return [best + loads[row] * self._request_s if row in self.silent else waits[row] for row in rows]

    def _read(self, rows: Sequence[int], instances: Sequence[InstanceView]) -> None:
        """Take note of what has been published."""
        for row, view in zip(rows, instances, strict=True):
            if row in self._unread:
                self._unread.remove(row)
                self._reported[row] = view.running + view.waiting
                used = min(1.0 - view.kv_blocks_free / view.kv_blocks_total, 0.999)
                self._kv_s[row] = _KV_PRESSURE_S * used / (1.0 - used)
                self._score(row)

    def _score(self, row: int) -> None:
        outstanding = max(self.in_flight.counts[row], self._reported[row] + self._since[row])
        self._waits_s[row] = outstanding * self._request_s + self._kv_s[row]

    def send(self, request: int, instance: int) -> None:
        """A request is sent to an instance."""
        self.end(request)
        row = self.in_flight.send(request, instance)
        self._since[row] += 1
        self._score(row)

    def end(self, request: int) -> None:
        """A request has ended."""
        row = self.in_flight.end(request)
        if row is not None:
            self._score(row)

    def published(self) -> None:
        """All have reported."""
        self._since = [0] * len(self._since)
        self.silent = set()
        self._unread = set(range(len(self._since)))

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone, or joined and have not reported yet."""
        before = {number: row for row, number in enumerate(self.in_flight.numbers)}
        self.in_flight.follow(numbers)
        rows = [before.get(number) for number in numbers]
        self._reported = [0 if row is None else self._reported[row] for row in rows]
        self._since = [0 if row is None else self._since[row] for row in rows]
        self._kv_s = [0.0 if row is None else self._kv_s[row] for row in rows]
        self._waits_s = [0.0 if row is None else self._waits_s[row] for row in rows]
        self._unread = {row for row, old in enumerate(rows) if old in self._unread}
        self.silent = {row for row, old in enumerate(rows) if old is None or old in self.silent}


class LeastLoad:
    """The instance with the least expected wait; what smg's other policies choose by among fewer."""

    def __init__(
        self, instances: int, seed: int, *, view_age_s: float = POLL_S, throughput_tokens_per_s: float | None = None
    ) -> None:
        """``throughput_tokens_per_s``: what workers report; None: nothing."""
        self.view_age_s = view_age_s
        self.wait = ExpectedWait(instances, throughput_tokens_per_s=throughput_tokens_per_s or _THROUGHPUT_TOKENS_PER_S)
        self.random = random.Random(seed)

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return one of the positions that are best."""
        best = self.candidates(request, instances)
        position = best[0] if len(best) == 1 else self.random.choice(best)
        self.send(request, instances[position].instance)
        return position

    def candidates(self, request: RequestView, instances: Sequence[InstanceView]) -> list[int]:
        """The positions that are equal under the rule."""
        return self.shortest(instances, None)

    def shortest(self, instances: Sequence[InstanceView], among: Sequence[int] | None) -> list[int]:
        """The positions with the least expected wait, of some or (None) of all."""
        if among is None:
            waits = self.wait.of(instances)
            shortest = min(waits)
            return [position for position, wait_s in enumerate(waits) if wait_s == shortest]
        waits = self.wait.of([instances[position] for position in among])
        shortest = min(waits)
        return [position for position, wait_s in zip(among, waits, strict=True) if wait_s == shortest]

    def send(self, request: RequestView, instance: int) -> None:
        """Note that a request is sent to an instance."""
        self.wait.send(request.request, instance)

    def ended(self, request: int, now_s: float) -> None:
        """One less is in flight."""
        self.wait.end(request)

    def published(self, now_s: float) -> None:
        """The poll has come back."""
        self.wait.published()

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone or joined."""
        self.wait.follow(numbers)


class PowerOfTwo(LeastLoad):
    """The shorter expected wait of two random instances."""

    def candidates(self, request: RequestView, instances: Sequence[InstanceView]) -> list[int]:
        """The better position of a pair that is drawn now; both, where they are equal."""
        if len(instances) == 1:
            return [0]
        first = self.random.randrange(len(instances))
        second = (first + 1 + self.random.randrange(len(instances) - 1)) % len(instances)
        return self.shortest(instances, (first, second))


class CacheAware(LeastLoad):
    """Prefix affinity, and expected wait among those that are alike by it."""

    def __init__(
        self,
        instances: int,
        prefix_id_tokens: int,
        seed: int,
        *,
        view_age_s: float = POLL_S,
        throughput_tokens_per_s: float | None = None,
        cache_threshold: float = 0.3,
        balance_abs_threshold: int = 64,
        balance_rel_threshold: float = 1.5,
        eviction_interval_s: float = _EVICTION_S,
    ) -> None:
        super().__init__(instances, seed, view_age_s=view_age_s, throughput_tokens_per_s=throughput_tokens_per_s)
        self.timers = {"evict": eviction_interval_s}
        self.tree = RadixTree(instances, prefix_id_tokens)
        self._cache_threshold = cache_threshold
        self._balance_abs_threshold = balance_abs_threshold
        self._balance_rel_threshold = balance_rel_threshold

    def candidates(self, request: RequestView, instances: Sequence[InstanceView]) -> list[int]:
        """The positions that are equal under the rule."""
        held = self.tree.match(request.prefix_ids)
        if held.tokens <= self._cache_threshold * request.prompt_tokens:
            return self.shortest(instances, None)
        loads = self.wait.in_flight.of(instances)
        most = self._most(loads)
        holders = [n for n, view in enumerate(instances) if view.instance in held.by]
        affine = [n for n in holders if loads[n] <= most]
        if not affine and holders:
            affine = [n for n, load in enumerate(loads) if load <= most]
        return self.shortest(instances, affine or None)

    def _most(self, loads: Sequence[int]) -> float:
        """Requests in flight above which an instance is overloaded."""
        mean = sum(loads) / len(loads)
        margin = max(_LEAST_MARGIN, _MARGIN_SIGMAS * math.sqrt(mean))
        return max(mean * self._balance_rel_threshold, mean + min(self._balance_abs_threshold, margin))

    def send(self, request: RequestView, instance: int) -> None:
        """Note that a request is sent to an instance."""
        super().send(request, instance)
        self.tree.insert(request.prefix_ids, request.prompt_tokens, instance)

    def tick(self, name: str, now_s: float) -> None:
        """Cut the tree down to its size."""
        self.tree.evict_together(_TREE_TOKENS)

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone, and what they had cached with them, or joined."""
        for instance in set(self.wait.in_flight.numbers) - set(numbers):
            self.tree.remove(instance)
        for instance in set(numbers) - set(self.wait.in_flight.numbers):
            self.tree.add(instance)
        super().follow(numbers)
