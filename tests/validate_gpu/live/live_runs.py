"""Live runs on a CPU: times imposed for a repeatable schedule, and agents that migrate on command."""

from __future__ import annotations

from collections.abc import Sequence

from l4sim.cost.affine import AffineCost
from l4sim.engine.protocol import Step
from l4sim.engine.request import Request
from l4sim.policies.agent import Crossed, Instruction, Migrate, OwnView, Started, Stimulus, Watch
from l4sim.simulator.modelled import Modelled
from l4sim.specs.link import Link
from validate_gpu.live.executor import LiveExecutor

COST = AffineCost(
    base_s=0.00831,
    per_sequence_s=1.7e-4,
    per_prefill_token_s=1.3e-4,
    per_context_token_s=2.9e-6,
    per_prefill_pair_s=1e-7,
)
KV_BYTES_PER_TOKEN = 100
# So slow that copying takes several iterations, and stages follow one another.
SLOW = Link("slow", bytes_per_s=6e4, latency_s=1.3e-3)


class ImposedTimes(LiveExecutor):
    """Runs every step, and then says that it took what the cost model gives."""

    def execute(self, instance: int, step: Step, decoding: Sequence[Request]) -> tuple[float, float]:
        super().execute(instance, step, decoding)
        return Modelled([COST] * 8).execute(instance, step, decoding)


class MoveAt:
    """Sends requests that reach a length to another instance."""

    def __init__(self, boundary_tokens: int | None, to: int = 1) -> None:
        self._boundary_tokens = boundary_tokens
        self._to = to

    def handle(self, stimulus: Stimulus, own: OwnView, now_s: float) -> Sequence[Instruction]:
        match stimulus:
            case Started():
                return (Watch(self._boundary_tokens),)
            case Crossed(request):
                return (Migrate(request.request, self._to, "handover"),)
        return ()
