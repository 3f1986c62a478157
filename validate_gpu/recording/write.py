"""Writing live runs, each as it ends."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from l4sim.cost.profile import PROFILE, profile_folder
from l4sim.experiment import Setup
from l4sim.policies.l4.partition import Partition
from l4sim.results.metrics import summarise
from l4sim.results.write import unwritable, write_json, write_run
from l4sim.workload.save import save_parquet
from l4sim.workload.trace import Trace
from validate_gpu.decisions import Call
from validate_gpu.live_run import Copy, Iteration, LiveRun
from validate_gpu.recording.files import BATCHES, COPIES, DECISIONS, LIVE, PARTITION, PROFILE_FOLDER, TRACE

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]


class Recorder:
    """Writes live runs into a folder as they end."""

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
        """Nothing is written yet: the first run that ends begins the folder, and removes an earlier recording there.

        ``describe`` is called after each run and gives what is known of the device.

        Raises:
            InputError: the profile cannot be read.
        """
        self._folder = folder
        self._trace = trace
        self._count: Counter[str] = Counter()
        self._config = setup.describe()
        self._describe = describe
        # Blocks that the device's room settled are options from now on, and the profile goes with the recording.
        options = asdict(replace(setup.options, kv_blocks=setup.engine.kv_blocks)) | {"profile": PROFILE_FOLDER}
        self._described = {"driver": driver, "policies": list(policies), "options": options}
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
            _write_table(_copy_table(live.copies), folder / COPIES)
            with (folder / DECISIONS).open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
                file.writelines(line.encode() + b"\n" for line in decision_lines(live.calls))
            if isinstance(live.partition, Partition):
                # Not `write_json`: forecasts may be infinite, and have to come back as they were.
                (folder / PARTITION).write_text(json.dumps(asdict(live.partition), indent=2) + "\n", encoding="utf-8")
            # Last: it is what makes a folder a run that has been written whole.
            _write_table(_batch_table(live.iterations), folder / BATCHES)
            write_json(self._folder / LIVE, {**self._described, "device": dict(self._describe())})
        except OSError as error:
            raise unwritable(self._folder, error) from error

    def _begin(self) -> None:
        if (self._folder / LIVE).is_file():
            shutil.rmtree(self._folder)
        (self._folder / PROFILE_FOLDER).mkdir(parents=True, exist_ok=True)
        (self._folder / PROFILE_FOLDER / PROFILE).write_bytes(self._profile)
        save_parquet(self._trace, self._folder / TRACE)


def decision_lines(calls: Sequence[Call]) -> Iterator[str]:
    """One JSON object per call of a policy's router, agent or coordinator, what was read of views among it.

    Messages, stimuli and instructions are in Python's words.
    """
    for call in calls:
        row = {"call": type(call).__name__, **call._asdict()}
        yield json.dumps({name: _as_json(value) for name, value in row.items()})


def _as_json(value: object) -> object:
    if isinstance(value, dict):
        return {name if isinstance(name, str) else repr(name): _as_json(item) for name, item in value.items()}
    return value if isinstance(value, (int, float, str)) else repr(value)


def _batch_table(iterations: Sequence[Iteration]) -> pa.Table:
    """One row per iteration, in the order in which reading takes its columns."""
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
