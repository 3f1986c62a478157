"""From parameters and a seed to a trace."""

from __future__ import annotations

from typing import Literal

import numpy as np

from l4sim.workload.synth.arrivals import Arrivals, require_extent
from l4sim.workload.synth.checks import require
from l4sim.workload.synth.joint import JointLengths
from l4sim.workload.synth.limits import limit_context
from l4sim.workload.synth.sessions import Sessions, converse
from l4sim.workload.trace import FloatArray, IntArray, Trace


def synthesize(
    lengths: JointLengths,
    arrivals: Arrivals,
    *,
    seed: int,
    requests: int | None = None,
    duration_s: float | None = None,
    sessions: Sessions | None = None,
    limit_tokens: int | None = None,
    over_limit: Literal["clip", "drop"] = "clip",
    name: str = "synthetic",
) -> Trace:
    """Make a trace; the same arguments give the same trace.

    Exactly one of ``requests`` and ``duration_s`` says how much: so many requests, or all arrivals up to a time.
    Without ``sessions`` every arrival is a request. With them, every arrival starts a session (so that requests come
    ``turns_mean`` times as often), ``lengths`` gives each turn's new user tokens and its output, and a duration bounds
    the sessions' starts. ``limit_tokens`` bounds prompt plus output (see ``limit_context``).

    Arrivals, lengths and sessions draw from independent streams of ``seed``, so changing one leaves the others as
    they were. Raises InputError for parameters out of range and where nothing arrives.
    """
    require(seed >= 0, f"seed must be an integer >= 0, not {seed}")
    require_extent(requests, duration_s)
    arrivals_rng, lengths_rng, sessions_rng = np.random.default_rng(seed).spawn(3)

    if sessions is None:
        arrival_s = _arrive(arrivals, arrivals_rng, requests, duration_s)
        trace = _open_loop(name, arrival_s, *lengths.draw(lengths_rng, len(arrival_s)))
    else:
        if requests is not None:
            turns = sessions.turns_of_requests(sessions_rng, requests)
            starts_s = arrivals.times(arrivals_rng, requests=len(turns))
        else:
            starts_s = _arrive(arrivals, arrivals_rng, None, duration_s)
            turns = sessions.turns(sessions_rng, len(starts_s))
        rows = int(turns.sum())
        user_tokens, output_tokens = lengths.draw(lengths_rng, rows)
        think_s = sessions.think_s(sessions_rng, rows)
        trace = converse(name, sessions, starts_s, turns, user_tokens, output_tokens, think_s)
    return trace if limit_tokens is None else limit_context(trace, limit_tokens, over_limit)


def _arrive(arrivals: Arrivals, rng: np.random.Generator, requests: int | None, duration_s: float | None) -> FloatArray:
    times_s = arrivals.times(rng, requests=requests, duration_s=duration_s)
    require(len(times_s) > 0, f"nothing arrives within {duration_s} s: give a longer duration or a higher rate")
    return times_s


def _open_loop(name: str, arrival_s: FloatArray, prompt_tokens: IntArray, output_tokens: IntArray) -> Trace:
    n = len(arrival_s)
    return Trace(
        name=name,
        request_id=tuple(map(str, range(n))),
        arrival_s=arrival_s,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        session=np.full(n, -1),
        after=np.full(n, -1),
        delay_s=np.full(n, np.nan),
    )
