"""Points predicted: each one's closed loop simulated, and its means held against what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from l4sim.errors import InputError
from l4sim.experiment import Setup, run_policy
from l4sim.recordings.points.instance import closed_loop, setup_of
from l4sim.recordings.points.rows import Point, RefusedRow
from l4sim.specs.attention import GroupedQuery, VariedQuery
from l4sim.specs.model import Model
from l4sim.sweeps.processes import Processes

REQUESTS_PER_PLACE = 10
"""Requests of a run for each one in flight, as such benchmarks send."""
CUT_ABOVE, CUT_REQUESTS_PER_PLACE = 256, 6
"""With more than so many at a time so few per place are simulated (`simulate`); `benchmarks/points_cut.py` prints what
that costs."""
_BEGINNING = 3
"""Requests per place before a loop has settled: all places begin at once, and the first ends come in a bunch."""

_CHUNK = 12
"""Points that a process takes at a time: enough to share an instance's cost tables, few enough to end together."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Predicted:
    """A point with what was predicted for it."""

    point: Point
    kind: str
    """Of the model: dense, experts, or latent and hybrid."""
    gpus: int
    basis: str
    """What the seconds rest on."""
    ttft_s: float
    tpot_s: float

    @property
    def ttft_error_pct(self) -> float:
        """(predicted - measured) / measured."""
        return 100 * (self.ttft_s - self.point.ttft_s) / self.point.ttft_s

    @property
    def tpot_error_pct(self) -> float:
        """The same of TPOT."""
        return 100 * (self.tpot_s - self.point.tpot_s) / self.point.tpot_s


def predict_points(
    points: Sequence[Point], *, models: Path | None = None, jobs: int = 1, say: Say = lambda _: None
) -> tuple[list[Predicted], list[RefusedRow]]:
    """Simulate every point; those that cannot be are refused with the reason. Both are in the file's order.

    ``models`` is a folder of models that are not bundled, ``jobs`` how many processes work, ``say`` is told how far
    they are.

    Raises:
        InputError: fewer than one job.
    """
    # Alike ones together, which share an instance's tables; the longest first, so that none is left alone at the end.
    order = sorted(points, key=lambda point: (-_work(point) // 2**20, point.model, point.gpu, point.ranks))
    chunks = [order[start : start + _CHUNK] for start in range(0, len(order), _CHUNK)]
    found: list[Predicted] = []
    refused: list[RefusedRow] = []
    for done, outcome in enumerate(_outcomes(chunks, models, jobs), 1):
        for each in outcome:
            if isinstance(each, Predicted):
                found.append(each)
            else:
                refused += each
        say(f"{min(done * _CHUNK, len(points))} of {len(points)} points")
    return sorted(found, key=lambda each: each.point.lines), sorted(refused)


def predict_point(point: Point, models: Path | None = None) -> Predicted:
    """Simulate one point.

    Raises:
        InputError: it cannot be simulated.
    """
    setup = setup_of(point, models)
    per_place = REQUESTS_PER_PLACE if point.concurrency <= CUT_ABOVE else CUT_REQUESTS_PER_PLACE
    ttft_s, tpot_s = simulate(point, setup, per_place)
    return Predicted(point, kind_of(setup.model), point.ranks.gpus, setup.groups[0].basis, ttft_s, tpot_s)


def simulate(point: Point, setup: Setup, requests_per_place: int) -> tuple[float, float]:
    """Mean TTFT and TPOT of `REQUESTS_PER_PLACE` requests per place, from a run of as many or fewer.

    Where fewer are simulated, those of the beginning and the last count once, as they do in the whole run, and those
    between for all that would be between.

    Raises:
        InputError: a request that cannot be served.
    """
    run = run_policy("round-robin", closed_loop(point, requests_per_place), setup).requests
    unserved = run[run["status"] != "finished"]
    if len(unserved):
        raise InputError(f"{len(unserved)} of {len(run)} requests cannot be served: {unserved.iloc[0]['reason']}")
    weights = np.ones(len(run))
    settled = slice(_BEGINNING * point.concurrency, -point.concurrency)
    weights[settled] = (REQUESTS_PER_PLACE - _BEGINNING - 1) / (requests_per_place - _BEGINNING - 1)
    return _mean(run["ttft_s"].to_numpy(), weights), _mean(run["tpot_s"].to_numpy(), weights)


def kind_of(model: Model) -> str:
    """What a model's layers are, as far as it decides how well they are known."""
    if not all(isinstance(group.attention, (GroupedQuery, VariedQuery)) for group in model.groups):
        return "latent and hybrid"
    return "dense" if model.parameters - model.active_parameters <= model.vocab * model.hidden else "experts"


def _outcomes(
    chunks: list[list[Point]], models: Path | None, jobs: int
) -> Iterator[list[Predicted | list[RefusedRow]]]:
    if jobs == 1:
        yield from (_outcome(chunk, models) for chunk in chunks)
        return
    with Processes(jobs) as processes:
        yield from processes.pool.map(_outcome, chunks, [models] * len(chunks))


def _outcome(points: list[Point], models: Path | None) -> list[Predicted | list[RefusedRow]]:
    found: list[Predicted | list[RefusedRow]] = []
    for point in points:
        try:
            found.append(predict_point(point, models))
        except InputError as error:
            found.append([RefusedRow(line, point.name, str(error)) for line in point.lines])
    return found


def _work(point: Point) -> int:
    """About in proportion to the time that a simulation takes: requests times those in flight."""
    return point.concurrency**2 * point.output_tokens


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    known = np.isfinite(values)
    return float(np.average(values[known], weights=weights[known]))
