"""How much faster a sweep is on two processes, from the command to its end. Run with `make bench`."""

from __future__ import annotations

import json
import subprocess
import sys
import time

GRID = {
    "policies": ["round-robin", "least-outstanding", "l4"],
    "rate": [2, 4],
    "seed": [0, 1, 2],
    "instances": 8,
    "synth": {"preset": "long-context-mix", "requests": 4000, "rate": 4, "max_model_len": 131_072},
}


def seconds(jobs, folder):
    spec = folder / "spec.yaml"
    spec.write_text(json.dumps(GRID))
    command = [sys.executable, "-m", "l4sim", "sweep", str(spec), "--out", str(folder / f"{jobs}"), "--no-plots"]
    start = time.perf_counter()
    done = subprocess.run([*command, "--jobs", str(jobs)], check=True, capture_output=True, text=True)
    assert "18 points done, 0 failed" in done.stdout
    return time.perf_counter() - start


def test_two_processes(benchmark, tmp_path):
    one_s = seconds(1, tmp_path)
    two_s = benchmark.pedantic(seconds, (2, tmp_path), rounds=1)
    print(f"\n18 points: {one_s:.1f} s on one process, {two_s:.1f} s on two: {one_s / two_s:.2f} times as fast")
