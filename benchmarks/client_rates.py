"""Whether an API server runs out of breath: TPOT of recorded clients by how many tokens a second all of them receive.

    python -m benchmarks.client_rates [FOLDER]

Of every recording under FOLDER (default: the shared data's, `L4SIM_SHARED`) that clients measured: requests by the
rate half-way through their answers, their mean TPOT and the model's. A server of limited capacity would show in an
error that grows with the rate. Then the same by the minute of first tokens, and the end of the run, by how many
requests are left: had tokens queued outside the engine, clients would go on at the full rate until none are left.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from l4sim.errors import InputError
from l4sim.recordings.every import recordings_under
from l4sim.recordings.fitting import FloatArray, decoding_at
from l4sim.recordings.replay import Replayable, replay, replayable

SHARED = Path(os.environ.get("L4SIM_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "validation"
RATE_STEP = 500
"""Tokens per second of one line."""
LEFT_STEP = 8
"""Requests left of one line."""
MINUTES_STEP = 2
"""Minutes of one line."""
LEAST = 30
"""Requests that a line of rates or minutes needs to be printed."""


def clients(run: Replayable) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What clients measured and what is predicted: ``first_s``, ``last_s``, ``tpot_s`` of the same requests."""
    measured = run.recording.requests
    known = np.isfinite(measured.tpot_s)
    predicted = replay(run.recording, run.setup).requests.set_index("request_id").loc[list(measured.request_id)]
    both = (measured.ttft_s, measured.e2e_s, measured.tpot_s), predicted[["ttft_s", "e2e_s", "tpot_s"]].to_numpy().T
    found = [
        pd.DataFrame({"first_s": measured.arrival_s + ttft_s, "last_s": measured.arrival_s + e2e_s, "tpot_s": tpot_s})[
            known
        ]
        for ttft_s, e2e_s, tpot_s in both
    ]
    return found[0], found[1]


def print_tpot(measured: pd.DataFrame, predicted: pd.DataFrame) -> None:
    """TPOT by tokens per second, and by the minute."""
    first_s, last_s = measured["first_s"].to_numpy(), measured["last_s"].to_numpy()
    at_work = decoding_at((first_s + last_s) / 2, first_s, last_s)
    found = pd.DataFrame({"at_work": at_work, "measured": measured["tpot_s"], "predicted": predicted["tpot_s"]})
    rates = found["at_work"] // found["measured"] // RATE_STEP * RATE_STEP
    minutes = measured["first_s"] // (60 * MINUTES_STEP) * MINUTES_STEP
    for unit, steps in (("tokens/s", rates), ("min", minutes)):
        for step, part in found.groupby(steps):
            if len(part) < LEAST:
                continue
            mean = part.mean()
            print(
                f"  from {step:4.0f} {unit}: {len(part):5d} requests, {mean['at_work']:5.1f} at work,"
                f" TPOT {mean['measured'] * 1e3:5.2f} ms, model {mean['predicted'] * 1e3:5.2f} ms"
                f" ({100 * (mean['predicted'] / mean['measured'] - 1):+.1f} %)"
            )


def ending(requests: pd.DataFrame) -> tuple[float, dict[int, float]]:
    """When the last request's first token came, and seconds of an iteration after it by requests left.

    All answers are as long: between the last tokens of two requests there are as many iterations as between their
    first, where each took what the answers then under way show.
    """
    ordered = requests.sort_values("first_s")
    begins_s = float(ordered["first_s"].iloc[-1])
    last = ordered[ordered["last_s"] > begins_s]
    iterations: FloatArray = np.diff(last["first_s"]) / last["tpot_s"].iloc[0]
    seconds, left = np.diff(last["last_s"]), np.arange(len(last) - 1, 0, -1)
    lines = {step: left // LEFT_STEP == step for step in sorted(set((left // LEFT_STEP).tolist()), reverse=True)}
    return begins_s, {step: seconds[rows].sum() / iterations[rows].sum() for step, rows in lines.items()}


def print_end(measured: pd.DataFrame, predicted: pd.DataFrame) -> None:
    """Iterations while the last requests end."""
    (measured_s, seen), (predicted_s, modelled) = ending(measured), ending(predicted)
    print(f"  nothing begins after {measured_s:.0f} s, in the model after {predicted_s:.0f} s")
    for step in sorted(seen.keys() & modelled.keys(), reverse=True):
        left = (step + 0.5) * LEFT_STEP
        print(
            f"  {left:5.0f} left: {seen[step] * 1e3:5.2f} ms, {left / seen[step]:5.0f} tokens/s,"
            f" model {modelled[step] * 1e3:5.2f} ms"
        )


def main() -> None:
    """Print all of it for every recording."""
    for path in recordings_under(Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED):
        try:
            run = replayable(path)
        except InputError as error:
            print(error)
            continue
        if run.recording.measured_at == "client":
            print(path.name)
            measured, predicted = clients(run)
            print_tpot(measured, predicted)
            if len(set(run.recording.requests.output_tokens.tolist())) == 1:
                print_end(measured, predicted)


if __name__ == "__main__":
    main()
