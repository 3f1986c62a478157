"""Constants of hosts and front ends fitted to recorded runs: what their requests took beyond what kernels explain.

A run counts by the slices of its requests (`_SLICES`), so that it tells light load from heavy. Fits are robust: a run,
or a part of it, that something else slows down does not pull the rest along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares

from l4sim.cost.host import HostOverhead
from l4sim.recordings.replay import Replayable, replay
from l4sim.results.run import Run
from l4sim.specs.fitted import FittedFrontEnd, FittedHost
from l4sim.specs.front_end import OFF

FloatArray = NDArray[np.float64]

_SLICES = 10
_START_S = 0.2e-3
_TPOT_SCALE = 0.01
"""Relative errors of TPOT above this count less than their square."""
_AT_ONCE = 3
"""Iterations: the rest of one that runs, one that is planned, and what prompts lengthen them by."""
_TTFT_SCALE_S = 1e-3
"""The same of TTFT."""


@dataclass(frozen=True, slots=True)
class HostResponse:
    """How one run's TPOT depends on the host's seconds per iteration, around where the fit starts."""

    errors: FloatArray
    """Relative, by slice; shape ``[slices]``."""
    slopes: FloatArray
    """Of them, for each second; of the same shape."""
    e2e_per_tpot: float
    """By how many percent mean E2E latency moves with 1 % of mean TPOT: what a queue multiplies an error by."""


def host(iteration_s: float) -> HostOverhead:
    """The host that takes so long in every iteration."""
    return HostOverhead(iteration_s, iteration_s)


def host_response(recorded: Replayable) -> HostResponse:
    """Replay a run with the constant that the fit starts from, and with twice as much."""
    requests = [
        _in_order(replay(recorded.recording, recorded.with_host(host(seconds)).setup), recorded)
        for seconds in (_START_S, 2 * _START_S)
    ]
    errors, further = (_tpot_errors(recorded, each) for each in requests)
    e2e, tpot = (np.log([each[metric].mean() for each in requests]) for metric in ("e2e_s", "tpot_s"))
    return HostResponse(errors, (further - errors) / _START_S, float(np.diff(e2e)[0] / np.diff(tpot)[0]))


def fit_host(responses: Sequence[HostResponse], source: str) -> FittedHost:
    """The seconds per iteration with which the runs' TPOT is met best; each run counts the same."""

    def residuals(ms: FloatArray) -> FloatArray:
        change_s = 1e-3 * ms[0] - _START_S
        return np.concatenate([each.errors + each.slopes * change_s for each in responses])

    found = least_squares(residuals, [0.2], bounds=(0, np.inf), loss="soft_l1", f_scale=_TPOT_SCALE)
    return FittedHost(_rounded(1e-3 * float(found.x[0])), source)


@dataclass(frozen=True, slots=True)
class FrontEndResponse:
    """What one run's clients saw later than its engine is predicted to have sent it, by slice of the batch's size."""

    batch_tokens: FloatArray
    """Mean tokens of the iterations that first tokens came from; shape ``[slices]``, as the next one."""
    late_s: FloatArray
    """Median of measured TTFT less the engine's."""


def front_end_response(recorded: Replayable) -> FrontEndResponse | None:
    """Replay a run without a front end, and compare TTFT; None where most requests are predicted to wait for a place in
    the batch, since what a queue adds tells of the engine's speed.
    """
    run = replay(recorded.recording, recorded.with_front_end(OFF).setup)
    requests = recorded.recording.requests
    predicted = _in_order(run, recorded)
    ttft_s = predicted["ttft_s"].to_numpy()
    late_s = requests.ttft_s - ttft_s
    first_s = requests.arrival_s + ttft_s
    beside = decoding_at(first_s, first_s, requests.arrival_s + predicted["e2e_s"].to_numpy())
    at_once = predicted["queue_s"].to_numpy() <= _AT_ONCE * np.nanmedian(predicted["tpot_s"].to_numpy())
    if at_once.mean() < 0.5:
        return None
    known = np.flatnonzero(np.isfinite(late_s) & at_once)
    slices = np.array_split(known[np.argsort(beside[known], kind="stable")], _SLICES)
    return FrontEndResponse(
        np.array([beside[rows].mean() for rows in slices if len(rows)]),
        np.array([np.median(late_s[rows]) for rows in slices if len(rows)]),
    )


def fit_front_end(responses: Sequence[FrontEndResponse], source: str) -> FittedFrontEnd:
    """Seconds per request and per streamed token with which the runs' TTFT is met best; each run counts the same.

    Seconds per prompt token stay 0: these prompts are too alike to tell them from those per request.
    """

    def residuals(units: FloatArray) -> FloatArray:
        request_ms, token_us = units
        return np.concatenate(
            [1e-3 * request_ms + 1e-6 * token_us * each.batch_tokens - each.late_s for each in responses]
        )

    request_ms, token_us = least_squares(
        residuals, [5.0, 50.0], bounds=(0, np.inf), loss="soft_l1", f_scale=_TTFT_SCALE_S, x_scale=(1.0, 10.0)
    ).x
    return FittedFrontEnd(_rounded(1e-3 * request_ms), 0.0, _rounded(1e-6 * token_us), source)


def _tpot_errors(recorded: Replayable, requests: pd.DataFrame) -> FloatArray:
    measured, predicted = recorded.recording.requests.tpot_s, requests["tpot_s"].to_numpy()
    slices = np.array_split(np.flatnonzero(np.isfinite(measured)), _SLICES)
    return np.array([predicted[rows].mean() / measured[rows].mean() - 1 for rows in slices if len(rows)])


def _in_order(run: Run, recorded: Replayable) -> pd.DataFrame:
    return run.requests.set_index("request_id").loc[list(recorded.recording.requests.request_id)]


def decoding_at(moments_s: FloatArray, first_s: FloatArray, last_s: FloatArray) -> FloatArray:
    """How many requests have had their first token and not their last, at each moment."""
    begun = np.searchsorted(np.sort(first_s), moments_s, side="right")
    ended = np.searchsorted(np.sort(last_s), moments_s, side="left")
    return (begun - ended).astype(np.float64)


def _rounded(seconds: float) -> float:
    """To a tenth of a microsecond."""
    return round(seconds, 7)
