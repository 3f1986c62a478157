"""Preble: to where the prefix is if it is more than half of the prompt, else to the least load.

Follows `multi_node/global_scheduler_with_time.py` of WukLab/preble (Srivatsa et al., ICLR '25; commit 0c962c4) as it
runs, with its rebalancing commented out. *Load* of an instance, in seconds: prompt tokens of the last 3 minutes that
it had to compute, at what they cost, and requests in flight times the tokens of an answer at what these cost. A prompt
that is known for more than half goes to the least loaded of the instances that were sent that part; any other to the
least loaded of all. Departures: costs of prompt and answer tokens are those of the simulated GPU, where the source has
a fit for a Mistral 7B on an A6000 and observed times; the length of an answer is the mean of the plan's sample; loads
are counted per request rather than per node of the tree.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from l4sim.policies.books.in_flight import InFlight
from l4sim.policies.books.radix_tree import RadixTree
from l4sim.policies.views import InstanceView, RequestView

_WINDOW_S = 180.0


class Preble:
    """Exploits long prefixes, and explores for short ones."""

    def __init__(self, instances: int, prefix_id_tokens: int, *, prompt_token_s: float, answer_s: float) -> None:
        """``prompt_token_s``: of one prompt token; ``answer_s``: of a whole answer."""
        self._tree = RadixTree(instances, prefix_id_tokens)
        self._in_flight = InFlight(instances)
        self._prompt_token_s = prompt_token_s
        self._answer_s = answer_s
        self._prompts_s = [0.0] * instances
        """By position, what the prompts of the window cost."""
        self._window: deque[tuple[float, int, float]] = deque()
        """When, where (instance number), how much."""

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the least loaded position of those that the prefix leaves."""
        now_s = instances[0].as_of_s
        self._forget(now_s - _WINDOW_S)
        depths = self._tree.depths(request.prefix_ids)
        known = max(depths.values(), default=0)
        among: Sequence[int] = range(len(instances))
        if 2 * known > request.prompt_tokens:
            among = [n for n in among if depths.get(instances[n].instance) == known] or among
        rows = self._in_flight.rows(instances)
        counts, prompts_s, answer_s = self._in_flight.counts, self._prompts_s, self._answer_s
        if isinstance(among, range) and isinstance(rows, range):
            loads = [prompt_s + count * answer_s for prompt_s, count in zip(prompts_s, counts, strict=True)]
        else:
            loads = [prompts_s[rows[n]] + counts[rows[n]] * answer_s for n in among]
        position = among[loads.index(min(loads))]
        number = instances[position].instance
        new_s = (request.prompt_tokens - depths.get(number, 0)) * self._prompt_token_s
        self._tree.insert(request.prefix_ids, request.prompt_tokens, number)
        self._prompts_s[self._in_flight.send(request.request, number)] += new_s
        self._window.append((now_s, number, new_s))
        return position

    def _forget(self, before_s: float) -> None:
        """Leave out what was sent before."""
        row = {number: n for n, number in enumerate(self._in_flight.numbers)} if self._window else {}
        while self._window and self._window[0][0] < before_s:
            _, number, cost_s = self._window.popleft()
            if number in row:
                self._prompts_s[row[number]] -= cost_s

    def ended(self, request: int, now_s: float) -> None:
        """One less is in flight."""
        self._in_flight.end(request)

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone, and what they were sent with them, or joined."""
        known = dict(zip(self._in_flight.numbers, self._prompts_s, strict=True))
        for instance in set(known) - set(numbers):
            self._tree.remove(instance)
        for instance in set(numbers) - set(known):
            self._tree.add(instance)
        self._in_flight.follow(numbers)
        self._prompts_s = [known.get(number, 0.0) for number in numbers]
