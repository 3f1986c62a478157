"""Fits to recorded runs find what a run was made with, and one odd run does not pull them along."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.recordings.fitting import FrontEndResponse, HostResponse, fit_front_end, fit_host


def host_run(true_ms: float, *, slowed: float = 0.0) -> HostResponse:
    """A run of 10 ms iterations whose host takes so long, predicted with 0.2 ms."""
    slopes = np.full(10, 1 / 10e-3)
    return HostResponse((0.2 - true_ms) * 1e-3 * slopes - slowed, slopes, 1.0)


def test_the_hosts_seconds_are_found() -> None:
    assert fit_host([host_run(0.35), host_run(0.35)], "test").iteration_s == pytest.approx(0.35e-3, rel=0.01)


def test_a_run_that_something_else_slows_counts_less_than_its_square() -> None:
    others = [host_run(0.3)] * 4
    found = fit_host([*others, host_run(0.3, slowed=0.15)], "test").iteration_s
    assert 0.3e-3 < found < 0.36e-3


def test_a_host_is_never_negative() -> None:
    assert fit_host([host_run(-1.0)], "test").iteration_s == pytest.approx(0.0, abs=1e-9)


def test_a_front_end_is_told_by_light_and_heavy_load() -> None:
    tokens = np.linspace(5, 90, 10)
    runs = [FrontEndResponse(part, 5e-3 + 60e-6 * part) for part in (tokens[:5], tokens[5:])]
    found = fit_front_end(runs, "test")
    assert found.request_s == pytest.approx(5e-3, rel=0.01)
    assert found.streamed_token_s == pytest.approx(60e-6, rel=0.01)
