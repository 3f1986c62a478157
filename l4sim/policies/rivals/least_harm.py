"""Least harm: a router that knows what a prompt does to those beside it, and nothing of stages.

Ours: the strongest control for L4 that sees no more than a front end does. Nothing is planned, nothing moves.
"""

from __future__ import annotations

from collections.abc import Sequence

from l4sim.policies.harm import harm_tokens
from l4sim.policies.views import InstanceView, RequestView


class LeastHarm:
    """The instance where one more request slows the others down, and is slowed down by them, the least."""

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position of least harm (`l4sim.policies.harm`), the first of equals."""
        harms = [harm_tokens(view, request.prompt_tokens) for view in instances]
        return harms.index(min(harms))
