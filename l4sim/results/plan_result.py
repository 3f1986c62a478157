"""What `l4sim.plan` gives back: the plan, with its stages as a frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from l4sim.policies.l4.partition import Partition

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class PlanResult:
    """A plan for L4, with the load and the latencies that the planner predicts for each stage."""

    partition: Partition
    planning_s: float
    """Seconds that planning took, from the histogram of lengths to the plan."""

    @property
    def feasible(self) -> bool:
        """Whether every stage carries its load."""
        return self.partition.feasible

    @cached_property
    def stages(self) -> DataFrame:
        """One row per stage: ``lo_tokens`` to ``hi_tokens`` (exclusive), the ``instances`` themselves, ``load`` (over
        what the stage can carry), ``batch`` in requests, ``tpot_s``, ``ttft_s``, ``prompts_per_s``, ``tokens_per_s``.
        """
        from pandas import DataFrame

        rows = [
            {
                "lo_tokens": stage.lo_tokens,
                "hi_tokens": stage.hi_tokens,
                "instances": stage.instances,
                "load": forecast.load,
                "batch": forecast.batch,
                "tpot_s": forecast.tpot_s,
                "ttft_s": forecast.ttft_s,
                "prompts_per_s": forecast.prompts_per_s,
                "tokens_per_s": forecast.tokens_per_s,
            }
            for stage, forecast in zip(self.partition.plan.stages, self.partition.forecasts, strict=True)
        ]
        return DataFrame(rows).rename_axis("stage")

    def __repr__(self) -> str:
        return f"{self._summary()}\n{self.stages.to_string()}"

    def _repr_html_(self) -> str:
        return f"{self.stages.to_html(border=0, na_rep='–')}<p>{self._summary()}</p>"

    def _summary(self) -> str:
        if not self.feasible:
            return f"infeasible: the fullest stage gets {self.partition.load:.2f} times what it carries"
        return f"{self.partition.objective.name}: {self.partition.value:.4g}"
