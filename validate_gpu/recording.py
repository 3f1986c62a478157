"""Live runs on disk, each written as it ends: enough to hold them against the simulator again, without the device.

The folder has ``live.json`` (options and device), ``trace.parquet`` and ``profile/``, what the runs were set up with;
then a folder per run, ``POLICY-N``: its tables, ``batches.parquet``, ``copies.parquet``, ``decisions.jsonl.gz`` and, if
there was a plan, ``partition.json``: everything of `LiveRun`.
"""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from l4sim.batch import Batch, Prefill
from l4sim.cost.profile import PROFILE, profile_folder
from l4sim.errors import InputError
from l4sim.experiment import Options, Setup, resolve
from l4sim.policies.l4.objective import Objective
from l4sim.policies.l4.partition import Partition, StageForecast
from l4sim.policies.l4.plan import Plan, Stage
from l4sim.results.metrics import summarise
from l4sim.results.run import BOUNDARIES, ITERATIONS, MIGRATIONS, REQUESTS, Run
from l4sim.results.write import unwritable, write_json, write_run
from l4sim.specs.fields import read_fields
from l4sim.workload.load import load_trace
from l4sim.workload.save import save_parquet
from l4sim.workload.trace import Trace
from validate_gpu.decisions import Call
from validate_gpu.records import Copy, Iteration, LiveRun

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]
    from pandas import DataFrame

LIVE = "live.json"
_TRACE, _PROFILE = "trace.parquet", "profile"
_BATCHES, _COPIES, _DECISIONS = "batches.parquet", "copies.parquet", "decisions.jsonl.gz"
PARTITION = "partition.json"
DRIVERS = ("lockstep", "realtime")
# What pandas, gzip and json have for files that are cut short, garbled or another's.
_UNREADABLE = (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, IndexError, AttributeError)


class Recorder:
    """Writes live runs as they end."""

    def __init__(
        self,
        folder: Path,
        trace: Trace,
        setup: Setup,
        policies: Sequence[str],
        *,
        driver: str,
        describe: Callable[[], Mapping[str, Any]],
    ) -> None:
        """What the first run's end will begin the folder with; what an earlier recording left there is removed then.

        ``describe`` tells the device of the runs, once one has ended.

        Raises:
            InputError: the profile cannot be read.
        """
        self._folder = folder
        self._trace = trace
        self._count: Counter[str] = Counter()
        self._config = setup.describe()
        self._describe = describe
        # Blocks that the device's room settled are options from now on, and the profile goes with the recording.
        options = asdict(replace(setup.options, kv_blocks=setup.engine.kv_blocks)) | {"profile": _PROFILE}
        self._told = {"driver": driver, "policies": list(policies), "options": options}
        # Read now: it may lie in the very folder that is removed.
        self._profile = (profile_folder(setup.options.profile) / PROFILE).read_bytes()

    def add(self, live: LiveRun) -> None:
        """Write one run.

        Raises:
            InputError: the folder cannot be written.
        """
        run = live.run
        try:
            if not self._count:
                self._begin()
            self._count[run.policy] += 1
            folder = self._folder / f"{run.policy.replace(':', '-')}-{self._count[run.policy]}"
            write_run(folder, self._config, [run], summarise(run))
            _write_table(_copy_table(live.copies), folder / _COPIES)
            with (folder / _DECISIONS).open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
                file.writelines(line.encode() + b"\n" for line in decision_lines(live.calls))
            if live.partition is not None:
                # Not `write_json`: forecasts may be infinite, and have to come back as they were.
                (folder / PARTITION).write_text(json.dumps(asdict(live.partition), indent=2) + "\n", encoding="utf-8")
            # Last: it is what makes a folder a run that has been written whole.
            _write_table(_batch_table(live.iterations), folder / _BATCHES)
            write_json(self._folder / LIVE, {**self._told, "device": dict(self._describe())})
        except OSError as error:
            raise unwritable(self._folder, error) from error

    def _begin(self) -> None:
        if (self._folder / LIVE).is_file():
            shutil.rmtree(self._folder)
        (self._folder / _PROFILE).mkdir(parents=True, exist_ok=True)
        (self._folder / _PROFILE / PROFILE).write_bytes(self._profile)
        save_parquet(self._trace, self._folder / _TRACE)


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """One run of a recording."""

    run: Run
    iterations: Sequence[Iteration]
    copies: Sequence[Copy]
    decisions: Sequence[str]
    """As `decision_lines` writes calls."""
    partition: Partition | None


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """What a `Recorder` wrote."""

    trace: Trace
    deployed: Setup
    """What the live runs were set up with."""
    driver: str
    device: Mapping[str, Any]
    runs: Mapping[str, Sequence[Recorded]]
    """By policy, in order of the repeats."""


def read_recording(folder: Path) -> Recording:
    """Everything in a recording's folder.

    Raises:
        InputError: no recording there, or a file of it that is missing or cannot be read.
    """
    if not (folder / LIVE).is_file():
        raise InputError(f"{folder}: no {LIVE}; accepted is the folder live of what l4sim validate TRACE --out wrote")
    told = read_fields(folder / LIVE).only("driver", "policies", "options", "device")
    driver, policies = told.text("driver"), told.get("policies")
    if driver not in DRIVERS:
        raise InputError(f"{folder / LIVE}: driver is {driver!r}, accepted are {', '.join(DRIVERS)}")
    if not isinstance(policies, list) or not all(isinstance(name, str) for name in policies):
        raise InputError(f"{folder / LIVE}: policies is {policies!r}, accepted is a list of names")
    given = dict(told.object("options").only(*(field.name for field in fields(Options))).values)
    given |= {"profile": str(folder / _PROFILE)}
    found: defaultdict[str, list[Recorded]] = defaultdict(list)
    for path in sorted(folder.glob(f"*/{_BATCHES}"), key=lambda path: _run_order(path.parent.name)):
        recorded = _read_run(path.parent)
        found[recorded.run.policy].append(recorded)
    runs = {policy: found[policy] for policy in policies if policy in found}
    if not runs:
        raise InputError(f"{folder}: no run of {', '.join(policies)} is in it; accepted is a recording with one")
    trace, deployed = load_trace(folder / _TRACE), _resolved(given, folder / LIVE)
    return Recording(trace, deployed, driver, dict(told.object("device").values), runs)


def _resolved(given: dict[str, Any], path: Path) -> Setup:
    try:
        if given.get("plan_histogram") is not None:
            given["plan_histogram"] = Path(given["plan_histogram"])
        return resolve(Options(**given))
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: options cannot be used ({error}); accepted are those that were recorded") from error


def decision_lines(calls: Sequence[Call]) -> Iterator[str]:
    """One JSON object per call of a policy's router, agent or coordinator, what was read of views among it.

    Messages, stimuli and instructions are in Python's words.
    """
    for call in calls:
        row = {"call": type(call).__name__, **call._asdict()}
        yield json.dumps({name: _told(value) for name, value in row.items()})


def _told(value: object) -> object:
    if isinstance(value, dict):
        return {name if isinstance(name, str) else repr(name): _told(item) for name, item in value.items()}
    return value if isinstance(value, (int, float, str)) else repr(value)


def _run_order(name: str) -> tuple[str, int]:
    policy, _, number = name.rpartition("-")
    return policy, int(number) if number.isdecimal() else 0


def _read_run(folder: Path) -> Recorded:
    import pandas as pd

    try:
        requests, segments, migrations = (
            _typed(pd.read_parquet(folder / f"{name}.parquet"), columns)
            for name, columns in (("requests", REQUESTS), ("iterations", ITERATIONS), ("migrations", MIGRATIONS))
        )
        moved = folder / "boundaries.parquet"
        boundaries = pd.read_parquet(moved) if moved.is_file() else pd.DataFrame(columns=list(BOUNDARIES))
        iterations = [_iteration(*row) for row in pd.read_parquet(folder / _BATCHES).itertuples(index=False)]
        copies = [Copy(*row) for row in pd.read_parquet(folder / _COPIES).itertuples(index=False)]
        with gzip.open(folder / _DECISIONS, "rt", encoding="utf-8") as file:
            decisions = file.read().splitlines()
        planned = folder / PARTITION
        partition = _partition(json.loads(planned.read_text(encoding="utf-8"))) if planned.is_file() else None
        run = Run(str(requests["policy"].iloc[0]), requests, segments, migrations, None, boundaries)
    except _UNREADABLE as error:
        raise InputError(f"{folder}: cannot be read as a recorded run ({error})") from error
    return Recorded(run, iterations, copies, decisions, partition)


def _partition(told: dict[str, Any]) -> Partition:
    stages = tuple(Stage(low, high, tuple(instances)) for low, high, instances in told["plan"]["stages"])
    forecasts = tuple(StageForecast(**forecast) for forecast in told["forecasts"])
    objective = Objective(**told["objective"])
    return Partition(**told | {"plan": Plan(stages), "forecasts": forecasts, "objective": objective})


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


def _batch_table(iterations: Sequence[Iteration]) -> pa.Table:
    """One row per iteration, in the order in which `_iteration` takes its columns."""
    import pyarrow as pa

    prefills = [iteration.batch.prefills for iteration in iterations]
    lengths = pa.list_(pa.int32())
    return pa.table(
        {
            "instance": pa.array([iteration.instance for iteration in iterations], pa.int32()),
            "seconds": pa.array([iteration.seconds for iteration in iterations], pa.float64()),
            "clock_mhz": pa.array([iteration.clock_mhz for iteration in iterations], pa.float64()),
            "decode_context_tokens": pa.array([i.batch.decode_context_tokens for i in iterations], lengths),
            "prefill_chunk_tokens": pa.array([[one.chunk_tokens for one in own] for own in prefills], lengths),
            "prefill_cached_tokens": pa.array([[one.cached_tokens for one in own] for own in prefills], lengths),
            "prefill_samples": pa.array([[one.samples for one in own] for own in prefills], pa.list_(pa.bool_())),
            "slowness": pa.array([iteration.slowness for iteration in iterations], pa.float64()),
        }
    )


def _copy_table(copies: Sequence[Copy]) -> pa.Table:
    import pyarrow as pa

    kinds = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    hints = get_type_hints(Copy)
    return pa.table({name: pa.array([getattr(copy, name) for copy in copies], kinds[hints[name]]) for name in hints})


def _write_table(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    pq.write_table(table, path, compression="zstd")
