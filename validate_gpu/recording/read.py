"""Reading back what a `validate_gpu.recording.write.Recorder` wrote."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from l4sim.batch import Batch, Prefill
from l4sim.errors import InputError
from l4sim.experiment import Options, Setup, resolve
from l4sim.json_files import Text, read_json
from l4sim.policies.l4.objective import Objective
from l4sim.policies.l4.partition import Partition, StageForecast
from l4sim.policies.plan import Plan, Stage
from l4sim.results.run import BOUNDARIES, ITERATIONS, MIGRATIONS, REQUESTS, Run
from l4sim.workload.load import load_trace
from l4sim.workload.trace import Trace
from validate_gpu.live_run import Copy, Iteration
from validate_gpu.recording.files import BATCHES, COPIES, DECISIONS, LIVE, PARTITION, PROFILE_FOLDER, TRACE

if TYPE_CHECKING:
    from pandas import DataFrame

# What pandas, gzip and json have for files that are cut short, garbled or another's.
_UNREADABLE = (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, IndexError, AttributeError)


@dataclass(frozen=True, slots=True, eq=False)
class RecordedRun:
    """One run of a recording."""

    run: Run
    iterations: Sequence[Iteration]
    copies: Sequence[Copy]
    decisions: Sequence[str]
    """As `decision_lines` writes calls."""
    partition: Partition | None


@dataclass(frozen=True, slots=True, eq=False)
class LiveRecording:
    """Live runs of several policies, each repeated, and what they were set up with."""

    trace: Trace
    deployed: Setup
    """What the live runs were set up with."""
    driver: str
    device: Mapping[str, Any]
    runs: Mapping[str, Sequence[RecordedRun]]
    """By policy, in order of the repeats."""


@dataclass(frozen=True, slots=True)
class _Described:
    """``live.json``."""

    driver: Literal["lockstep", "realtime"]
    policies: tuple[Text, ...]
    options: Mapping[str, Any]
    device: Mapping[str, Any]


def read_recording(folder: Path) -> LiveRecording:
    """Everything in a recording's folder.

    Raises:
        InputError: no recording there, or a file of it that is missing or cannot be read.
    """
    if not (folder / LIVE).is_file():
        raise InputError(f"{folder}: no {LIVE}; accepted is the folder live of what l4sim validate TRACE --out wrote")
    described = read_json(folder / LIVE, _Described)
    policies, given = described.policies, dict(described.options)
    accepted = [field.name for field in fields(Options)]
    for name in given:
        if name not in accepted:
            raise InputError(f"{folder / LIVE}: options: unknown field {name}, accepted are {', '.join(accepted)}")
    given |= {"profile": str(folder / PROFILE_FOLDER)}
    found: defaultdict[str, list[RecordedRun]] = defaultdict(list)
    for path in sorted(folder.glob(f"*/{BATCHES}"), key=lambda path: _run_order(path.parent.name)):
        recorded = _read_run(path.parent)
        found[recorded.run.policy].append(recorded)
    runs = {policy: found[policy] for policy in policies if policy in found}
    if not runs:
        raise InputError(f"{folder}: no run of {', '.join(policies)} is in it; accepted is a recording with one")
    trace, deployed = load_trace(folder / TRACE), _resolved(given, folder / LIVE)
    return LiveRecording(trace, deployed, described.driver, described.device, runs)


def _resolved(given: dict[str, Any], path: Path) -> Setup:
    try:
        if given.get("plan_histogram") is not None:
            given["plan_histogram"] = Path(given["plan_histogram"])
        return resolve(Options(**given))
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: options cannot be used ({error}); accepted are those that were recorded") from error


def _run_order(name: str) -> tuple[str, int]:
    policy, _, number = name.rpartition("-")
    return policy, int(number) if number.isdecimal() else 0


def _read_run(folder: Path) -> RecordedRun:
    import pandas as pd

    try:
        requests, segments, migrations = (
            _typed(pd.read_parquet(folder / f"{name}.parquet"), columns)
            for name, columns in (("requests", REQUESTS), ("iterations", ITERATIONS), ("migrations", MIGRATIONS))
        )
        moved = folder / "boundaries.parquet"
        boundaries = pd.read_parquet(moved) if moved.is_file() else pd.DataFrame(columns=list(BOUNDARIES))
        iterations = [_iteration(*row) for row in pd.read_parquet(folder / BATCHES).itertuples(index=False)]
        copies = [Copy(*row) for row in pd.read_parquet(folder / COPIES).itertuples(index=False)]
        with gzip.open(folder / DECISIONS, "rt", encoding="utf-8") as file:
            decisions = file.read().splitlines()
        planned = folder / PARTITION
        partition = _partition(json.loads(planned.read_text(encoding="utf-8"))) if planned.is_file() else None
        run = Run(str(requests["policy"].iloc[0]), requests, segments, migrations, None, boundaries)
    except _UNREADABLE as error:
        raise InputError(f"{folder}: cannot be read as a recorded run ({error})") from error
    return RecordedRun(run, iterations, copies, decisions, partition)


def _partition(values: dict[str, Any]) -> Partition:
    stages = tuple(Stage(low, high, tuple(instances)) for low, high, instances in values["plan"]["stages"])
    forecasts = tuple(StageForecast(**forecast) for forecast in values["forecasts"])
    objective = Objective(**values["objective"])
    return Partition(**values | {"plan": Plan(stages), "forecasts": forecasts, "objective": objective})


def _typed(table: DataFrame, columns: Mapping[str, type]) -> DataFrame:
    """A table made as a run's is: pandas has types of its own for texts, which differ with where they come from."""
    from pandas import DataFrame

    kinds = {name: object if kind is str else kind for name, kind in columns.items()}
    return DataFrame({name: table[name].to_numpy(kind) for name, kind in kinds.items()})


def _iteration(
    instance: int,
    seconds: float,
    clock_mhz: float,
    contexts: NDArray[np.int64],
    chunks: NDArray[np.int64],
    cached: NDArray[np.int64],
    samples: NDArray[np.bool_],
    slowness: float = 1.0,
) -> Iteration:
    prefills = tuple(map(Prefill, chunks.tolist(), cached.tolist(), samples.tolist()))
    contexts = contexts.astype(np.int64)
    return Iteration(instance, Batch(contexts, int(contexts.sum()), prefills), seconds, clock_mhz, slowness)
