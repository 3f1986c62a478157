"""Boundaries refined from length distribution, queue and spare capacity, as the paper words it. **[ours: the formula]**

A secondary summary of the paper says that each stage observes its own and its successor's length distribution, queue
and spare capacity, and moves their shared boundary in small steps. So a stage's use is the KV cache that its requests
hold and the tokens that its queue brings along, of what its instances hold together. If two neighbours' shares of it
differ by more than `GAP`, so many tokens are to change sides that they would be equal; of the fuller stage's lengths,
as a sample of its requests tells them, those nearest to the boundary make up that many tokens, and the boundary moves
towards the last of them, by `refinement.MOST_STEP` at most. Who speaks to whom, and when, is as in `refinement`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from l4sim.policies.agent import OwnView
from l4sim.policies.l4.messages import Report, StageState, State, Summary
from l4sim.policies.l4.refinement import Refinement

GAP = 0.05
"""Of the KV cache; less is noise."""
LENGTHS = 16
"""Of one instance's requests, in a report."""
TOLD = 64
"""Of one stage's, to the leader below."""


class BySpareCapacity(Refinement):
    """One instance's part: member of its stage, and perhaps its leader."""

    _state = State(0, 0, 1, ())

    def sample(self, own: OwnView) -> None:
        """Note the instance's own state."""
        lengths = [request.context_tokens for request in own.decoding()]
        used_blocks = own.kv_blocks_total - own.kv_blocks_free
        self._state = State(
            used_blocks * own.kv_block_tokens,
            own.waiting_tokens,
            own.kv_blocks_total * own.kv_block_tokens,
            self._some(lengths, LENGTHS),
        )

    def _some(self, lengths: Sequence[int], most: int) -> tuple[int, ...]:
        if len(lengths) <= most:
            return tuple(lengths)
        return tuple(lengths[i] for i in self._random.choice(len(lengths), most, replace=False))

    def _report(self) -> Report | State:
        return self._state

    def _summary(self, reports: Sequence[Any]) -> Summary | StageState:
        members = len(self._ranges.members(self._stage)) / len(reports)
        used = members * sum(state.used_tokens + state.queued_tokens for state in reports)
        capacity = members * sum(state.capacity_tokens for state in reports)
        lengths = [length for state in reports for length in state.lengths]
        return StageState(self._stage, used, capacity, self._some(lengths, TOLD))

    def _step(self, here: Any, above: Any) -> float:
        """By what share the boundary is to fall: towards the length that would leave both stages equally full."""
        gap = here.used_tokens / here.capacity_tokens - above.used_tokens / above.capacity_tokens
        if abs(gap) < GAP:
            return 0.0
        # Equal shares: (used - moved) / capacity = (used above + moved) / capacity above.
        capacities = here.capacity_tokens * above.capacity_tokens / (here.capacity_tokens + above.capacity_tokens)
        moved = abs(gap) * capacities
        _, hi = self._ranges.range_of(self._stage)
        # Those that are beyond the boundary already, on either side, are not moved by it.
        if gap > 0:
            lengths = sorted((length for length in here.lengths if length < hi), reverse=True)
        else:
            lengths = sorted(length for length in above.lengths if length >= hi)
        if not lengths:
            return 0.0
        fuller = here if gap > 0 else above
        part = moved * sum(fuller.lengths) / max(fuller.used_tokens, 1)
        place = next((place for place, tokens in enumerate(accumulate(lengths)) if tokens >= part), len(lengths) - 1)
        return float(1 - lengths[place] / hi)
