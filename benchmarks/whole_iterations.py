"""How much the few coefficients of `l4sim profile fit FOLDER` lose: ``python -m benchmarks.whole_iterations``.

Iterations are those of a simulated engine on a GPU's measured costs, which see every length and every captured step.
The coefficients are fitted to one run of it; other runs are predicted with them, at the same load and at a higher one.
Real engines add what no model has: this is the least error to expect of a profile made of a recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from l4sim.batch import Batch
from l4sim.calibration.whole_iterations import fit_whole_iterations
from l4sim.cost.whole_iterations import ModelSizes, whole_iterations_cost
from l4sim.engine.protocol import Step
from l4sim.engine.request import Request
from l4sim.experiment import Options, resolve, run_policy
from l4sim.simulator.modelled import Modelled
from l4sim.workload.trace import Trace

RUNS = (
    ("h100-sxm", "llama-3.1-8b", 1, 6, 11),
    ("rtx-pro-6000", "llama-3.1-8b", 1, 3, 5),
    ("h100-sxm", "llama-3.1-70b", 4, 3, 5),
)
"""Profile, model, tensor parallel, requests a second of the fitted run, and of the higher load."""

REQUESTS = 250


class Recorded(Modelled):
    """Remembers every iteration's batch and seconds."""

    def __init__(self, costs: Sequence[Any]) -> None:
        super().__init__(costs)
        self.batches: list[Batch] = []
        self.seconds: list[float] = []

    def execute(self, instance: int, step: Step, decoding: Sequence[Request]) -> tuple[float, float]:
        """As any modelled iteration."""
        taken = super().execute(instance, step, decoding)
        batch = step.batch
        self.batches.append(batch._replace(decode_context_tokens=batch.decode_context_tokens.copy()))
        self.seconds.append(taken[0])
        return taken


def trace(seed: int, rate_per_s: float) -> Trace:
    """Prompts of some 500 tokens and answers of some 150, both with long tails."""
    drawn = np.random.default_rng(seed)
    nobody = np.full(REQUESTS, -1)
    return Trace(
        name="lognormal",
        request_id=tuple(map(str, range(REQUESTS))),
        arrival_s=np.cumsum(drawn.exponential(1 / rate_per_s, REQUESTS)),
        prompt_tokens=np.clip(drawn.lognormal(6.2, 0.9, REQUESTS), 16, 6000).astype(np.int64),
        output_tokens=np.clip(drawn.lognormal(5.0, 0.7, REQUESTS), 2, 1500).astype(np.int64),
        session=nobody,
        after=nobody,
        delay_s=np.full(REQUESTS, np.nan),
    )


def main() -> None:
    """Print the errors of mean TTFT, TPOT and E2E for each of `RUNS`."""
    for profile, model, tensor_parallel, *rates in RUNS:
        options = Options(
            instances=1,
            profile=profile,
            model=model,
            tensor_parallel=tensor_parallel,
            max_num_seqs=256,
            max_num_batched_tokens=2048,
            fast_forward=False,
        )
        setup = resolve(options)
        ran = Recorded([setup.groups[0].cost])
        run_policy("round-robin", trace(1, rates[0]), setup, executor=ran)
        found = fit_whole_iterations(ran.batches, ran.seconds, ModelSizes.of(setup.model), tensor_parallel)
        cost = whole_iterations_cost(
            (found.fitted,), setup.model, tensor_parallel=tensor_parallel, most_tokens=2048, where=profile
        )
        print(f"{profile}, {model}, TP {tensor_parallel}: held-out iterations, MAPE {found.errors['mape_pct']:.2f} %")
        for rate in rates:
            told = run_policy("round-robin", trace(2, rate), setup).requests
            fitted = run_policy("round-robin", trace(2, rate), setup, executor=Modelled([cost])).requests
            errors = [
                f"{metric.removesuffix('_s')} {100 * (fitted[metric].mean() / told[metric].mean() - 1):+.1f} %"
                for metric in ("ttft_s", "tpot_s", "e2e_s")
            ]
            print(f"  {rate} requests/s: {', '.join(errors)}")


if __name__ == "__main__":
    main()
