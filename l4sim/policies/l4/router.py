"""L4's dispatch: the stage of the prompt's length, and in it the least loaded instance."""

from __future__ import annotations

from collections.abc import Sequence

from l4sim.policies.l4.plan import Plan
from l4sim.policies.views import InstanceView, RequestView


class L4Router:
    """Routes a new request by its current length."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the least loaded instance of the request's stage.

        Load counts requests: within a stage they are alike, which is what the stage is for.
        """
        stage = self._plan.stages[self._plan.stage_of(request.context_tokens)]
        return min(stage.instances, key=lambda i: instances[i].running + instances[i].waiting)
