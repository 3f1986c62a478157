"""What prefix caches cost in time on long prompts: this tree against another one, on the agentic trace, in pairs.

    git worktree add ../base COMMIT
    python -m benchmarks.prefixes ../base [PAIRS]

Processes of both trees alternate, so that what else the machine does meets both. The trace (8,343 prompts of 122,704
tokens on average, 96 % of them shared) is read from the shared data (`L4SIM_SHARED`). CPU seconds, on one core.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("L4SIM_SHARED", HERE.parent / "shared"))
TRACE = SHARED / "traces" / "weka_agentic_mooncake512_dev.jsonl.gz"
POLICIES = ("round-robin", "sglang-cache-aware", "l4")
PARTS = ("load", *POLICIES)

MEASURED = """
import sys, time
from l4sim.experiment import Options, resolve, run_policy
from l4sim.workload.load import load_trace
resolve(Options())
start = time.process_time()
trace = load_trace(sys.argv[1])
print(time.process_time() - start)
for policy in sys.argv[2:]:
    setup = resolve(Options(cost_model="affine", instances=8))
    start = time.process_time()
    run_policy(policy, trace, setup)
    print(time.process_time() - start)
"""


def seconds(tree: Path) -> list[float]:
    """CPU seconds of each of `PARTS` in a process of its own, with the code of ``tree``."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, "-c", MEASURED, str(TRACE), *POLICIES]
    done = subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, text=True)
    return list(map(float, done.stdout.split()))


def main() -> None:
    """Print each part's seconds in both trees and the median of their ratios."""
    base = Path(sys.argv[1]).resolve()
    if not TRACE.exists():
        sys.exit(f"no {TRACE}")
    pairs = [(seconds(base), seconds(HERE)) for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 5)]
    print(f"{'':20s} {'base':>8s} {'here':>8s} {'ratio':>7s}")
    for place, part in enumerate((*PARTS, "all")):
        both = [tuple(sum(side) if part == "all" else side[place] for side in pair) for pair in pairs]
        before, after = (statistics.median(side) for side in zip(*both, strict=True))
        ratio = statistics.median(now / then for then, now in both)
        print(f"{part:20s} {before:6.2f} s {after:6.2f} s {ratio:7.2f}")


if __name__ == "__main__":
    main()
