"""What a plan may know of a trace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from l4sim.experiment import Options, resolve, sample_demand
from l4sim.experiment.planning import sample_size
from l4sim.workload.trace import Trace

SETUP = resolve(Options(instances=2))


def made(count: int) -> Trace:
    """Requests of 100 prompt and 10 output tokens, one a second."""
    none = np.full(count, -1)
    return Trace(
        "made",
        tuple(map(str, range(count))),
        np.arange(count, dtype=np.float64),
        np.full(count, 100),
        np.full(count, 10),
        none,
        none,
        np.full(count, np.nan),
    )


@pytest.mark.parametrize(("requests", "known"), [(1000, 200), (1004, 200), (251, 50), (249, 50), (50, 50), (30, 30)])
def test_a_plan_knows_the_first_fifth_of_a_trace_but_50_requests_if_there_are_so_many(requests: int, known: int):
    assert sample_size(made(requests), SETUP) == known


def test_the_options_say_another_share():
    half = replace(SETUP, options=replace(SETUP.options, plan_sample=0.5))
    assert sample_size(made(1000), half) == 500
    assert sample_size(made(80), half) == 50


def test_what_comes_after_the_sample_is_not_known():
    trace = made(400)
    prompt = trace.prompt_tokens.copy()
    prompt[80:] = 50_000
    known, same = (sample_demand(one, SETUP) for one in (trace, replace(trace, prompt_tokens=prompt)))
    assert np.array_equal(known.arrivals_per_s, same.arrivals_per_s)
    prompt = prompt.copy()
    prompt[79] = 50_000
    assert not np.array_equal(
        known.arrivals_per_s, sample_demand(replace(trace, prompt_tokens=prompt), SETUP).arrivals_per_s
    )
