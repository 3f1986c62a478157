"""What cutting closed loops short costs: `l4sim validate points` against whole runs, by concurrency.

    python -m benchmarks.points_cut FILE.csv [--every 10]

Of every so many-th point above `CUT_ABOVE` requests at a time the whole run is simulated too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from l4sim.errors import InputError
from l4sim.recordings.points.instance import setup_of
from l4sim.recordings.points.predict import CUT_ABOVE, CUT_REQUESTS_PER_PLACE, REQUESTS_PER_PLACE, simulate
from l4sim.recordings.points.rows import read_points


def main() -> None:
    """Print by how much mean TTFT and TPOT of cut runs differ from those of whole ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--every", type=int, default=10)
    given = parser.parse_args()
    points = [point for point in read_points(given.table)[0] if point.concurrency > CUT_ABOVE]
    errors = []
    for point in points[:: given.every]:
        try:
            setup = setup_of(point)
            whole, cut = (np.array(simulate(point, setup, n)) for n in (REQUESTS_PER_PLACE, CUT_REQUESTS_PER_PLACE))
        except InputError:
            continue
        errors.append(100 * (cut / whole - 1))
        print(f"TTFT {errors[-1][0]:+.2f} %, TPOT {errors[-1][1]:+.2f} %: {point.name}", flush=True)
    if errors:
        ttft, tpot = np.abs(errors).T
        print(f"{len(errors)} points: TTFT {ttft.mean():.2f} % (at most {ttft.max():.2f})", end="; ")
        print(f"TPOT {tpot.mean():.2f} % (at most {tpot.max():.2f})")


if __name__ == "__main__":
    main()
