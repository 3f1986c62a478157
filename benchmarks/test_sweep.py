"""How much faster a sweep is on two processes, start-up of the processes included. Run with `make bench`."""

from __future__ import annotations

import time

from l4sim.sweeps.sweep import run_sweep

GRID = {
    "policies": ["round-robin", "least-outstanding", "l4"],
    "rate": [2, 4],
    "seed": [0, 1, 2],
    "instances": 8,
    "synth": {"preset": "long-context-mix", "requests": 1500, "rate": 4, "max_model_len": 131_072},
}


def seconds(jobs, out):
    start = time.perf_counter()
    result = run_sweep(GRID, out, jobs=jobs)
    assert not len(result.failures)
    return time.perf_counter() - start


def test_two_processes(benchmark, tmp_path):
    one_s = seconds(1, tmp_path / "one")
    two_s = benchmark.pedantic(seconds, (2, tmp_path / "two"), rounds=1)
    print(f"\n18 points: {one_s:.1f} s on one process, {two_s:.1f} s on two: {one_s / two_s:.2f} times as fast")
