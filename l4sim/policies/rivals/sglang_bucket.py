"""SGLang's `bucket`: one range of prompt lengths per instance, redrawn as the traffic changes.

Follows `sgl-model-gateway/src/policies/bucket.rs` of SGLang's gateway 0.3.2. Ranges are drawn so that each holds an
equal share of the prompt tokens of the last 5 s; every 5 s they are drawn again if the share has at least doubled or
halved since. A request goes to the instance of its range, unless the prompt tokens sent to each instance in these 5 s
are imbalanced: then to the one with the fewest. Departures:

- The source counts characters, and its thresholds (a first range of 4096, an imbalance of 64) are converted.
- The source routes to prefill instances of a disaggregated deployment; here an instance decodes as well.
- Equal counts: the first instance, where the source takes whichever its hash map yields first.
- When instances go or join, ranges are drawn at the next arrival, from what those that are there were sent lately.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence

from l4sim.policies.rivals.balance import CHARACTERS_PER_TOKEN, is_imbalanced
from l4sim.policies.views import InstanceView, RequestView

_FIRST_SPAN_TOKENS = 4096 // CHARACTERS_PER_TOKEN


def draw_ranges(prompt_tokens: Iterable[int], buckets: int) -> list[int]:
    """The upper ends, inclusive, of all ranges but the last, for equal shares of these prompts' tokens.

    Source: `adjust_boundary` in `bucket.rs`; a range that no prompt fills is one share wide.
    """
    lengths = sorted(prompt_tokens)
    share = sum(lengths) // buckets
    remaining = iter(lengths)
    uppers: list[int] = []
    lower = 0
    for _ in range(buckets - 1):
        load = 0
        upper = lower + share
        for length in remaining:
            load += length
            if load >= share:
                upper = length if length > lower else upper
                break
        uppers.append(upper)
        lower = upper + 1
    return uppers


def _even_ranges(buckets: int) -> list[int]:
    """The upper ends of the first ranges, before there are prompts to draw them from."""
    span = _FIRST_SPAN_TOKENS // buckets
    return [(n + 1) * span - 1 for n in range(buckets - 1)]


class Bucket:
    """Routes by prompt length."""

    def __init__(
        self,
        instances: int,
        *,
        balance_abs_threshold: int = 64 // CHARACTERS_PER_TOKEN,
        balance_rel_threshold: float = 1.5,
        adjust_interval_s: float = 5.0,
        order: Sequence[int] | None = None,
    ) -> None:
        """``balance_abs_threshold`` is in prompt tokens; ``adjust_interval_s`` is also how long a prompt counts.

        ``order``: whose range is the first, the second and so on, by position; None: as they are numbered.
        """
        self.timers = {"adjust": adjust_interval_s}
        self._balance_abs_threshold = balance_abs_threshold
        self._balance_rel_threshold = balance_rel_threshold
        self._interval_s = adjust_interval_s
        self._order = list(order or range(instances))
        self._uppers = _even_ranges(instances)
        self._share_tokens = 0
        """Each range's share when the ranges were drawn last."""
        self._recent: deque[tuple[float, int, int]] = deque()
        """Arrivals that count: when, prompt tokens, where."""
        self._recent_tokens = [0] * instances
        self._numbers = list(range(instances))
        """Of the instances that take requests, in order."""

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position of the prompt's range, or the one that was sent the fewest tokens lately."""
        position = self.candidates(request, instances)[0]
        self.send(request, instances[position].instance, instances[position].as_of_s)
        return position

    def candidates(self, request: RequestView, instances: Sequence[InstanceView]) -> list[int]:
        """The positions that are equal under the rule, that which is taken in front."""
        tokens = self._recent_tokens
        if is_imbalanced(tokens, self._balance_abs_threshold, self._balance_rel_threshold):
            least = min(tokens)
            rows = [row for row, sent in enumerate(tokens) if sent == least]
        else:
            rows = [self._order[bisect_left(self._uppers, request.prompt_tokens)]]
        if len(instances) == len(self._numbers):
            return rows
        # Not all can serve it: if the one chosen cannot, the one of these that was sent the fewest tokens.
        able = [self._numbers.index(view.instance) for view in instances]
        return [able.index(row) for row in rows if row in able] or [able.index(min(able, key=tokens.__getitem__))]

    def send(self, request: RequestView, instance: int, now_s: float) -> None:
        """Note that a request is sent to an instance."""
        recent = self._recent
        position = self._numbers.index(instance)
        self._recent_tokens[position] += request.prompt_tokens
        while recent and now_s - recent[0][0] > self._interval_s:
            _, expired_tokens, where = recent.popleft()
            self._recent_tokens[where] -= expired_tokens
        recent.append((now_s, request.prompt_tokens, position))

    def tick(self, name: str, now_s: float) -> None:
        """Draw the ranges again, if the traffic has changed by enough."""
        if not self._recent:
            return
        lengths = [tokens for _, tokens, _ in self._recent]
        buckets = len(self._recent_tokens)
        old, new = self._share_tokens, sum(lengths) // buckets
        if old and new <= 2 * old and old <= 2 * new:
            return
        self._share_tokens = new
        self._uppers = draw_ranges(lengths, buckets)

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone or joined: those that are there share all lengths."""
        position = {instance: n for n, instance in enumerate(numbers)}
        sent = [(time_s, tokens, self._numbers[where]) for time_s, tokens, where in self._recent]
        self._recent = deque((time_s, tokens, position[to]) for time_s, tokens, to in sent if to in position)
        self._numbers = list(numbers)
        self._order = list(range(len(numbers)))
        self._recent_tokens = [0] * len(numbers)
        for _, tokens, where in self._recent:
            self._recent_tokens[where] += tokens
        lengths = [tokens for _, tokens, _ in self._recent]
        self._uppers = draw_ranges(lengths, len(numbers)) if lengths else _even_ranges(len(numbers))
