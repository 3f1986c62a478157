"""Running a sweep: from its grid to its tables and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l4sim import __version__
from l4sim.errors import InputError
from l4sim.results.slo import parse_slo
from l4sim.results.write import unwritable, write_json
from l4sim.sweeps.capacity import search_capacity
from l4sim.sweeps.executors import executor_by_name
from l4sim.sweeps.grid import expand, grid_axes, own_policies
from l4sim.sweeps.own import own_policy
from l4sim.sweeps.points import Point, Row
from l4sim.sweeps.processes import Processes
from l4sim.sweeps.result import SweepResult
from l4sim.sweeps.runner import Progress, Report, run_points
from l4sim.sweeps.seeds import over_seeds
from l4sim.sweeps.store import Store, table_of

if TYPE_CHECKING:
    from pandas import DataFrame


def run_sweep(
    grid: Mapping[str, Any],
    out: Path,
    *,
    where: str = "grid",
    jobs: int = 1,
    executor: Executor | str | None = None,
    retry_failed: bool = False,
    slo: str | None = None,
    price_usd_per_gpu_hour: float | None = None,
    search: str | None = None,
    report: Report | None = None,
) -> SweepResult:
    """Run every point of a grid, or search for the capacity of each of its combinations; what is in ``out`` is kept.

    Each point is stored in ``out/points`` as it finishes, under the hash of its configuration. At the end ``out``
    also has ``sweep.parquet`` (every point), ``means.parquet`` (over seeds), ``config.json``, after a search
    ``capacity.parquet``, and else with several policies and seeds ``changes.parquet`` (between policies, paired by
    seed). For the arguments see `l4sim.sweeps.grid`, `capacity`, `executors` and `runner`, and `l4sim.results.slo`.

    Raises:
        InputError: a grid, an SLO, a search or an executor that is not accepted, or an ``out`` that cannot be written.
    """
    if search is not None and slo is None:
        raise InputError(f"a search for {search} needs an SLO, such as ttft_p99=2s,tpot_p99=50ms")
    if price_usd_per_gpu_hour is not None and not price_usd_per_gpu_hour > 0:
        raise InputError(f"the price per GPU-hour must be above 0 USD, not {price_usd_per_gpu_hour}")
    limits = None if slo is None else parse_slo(slo)
    axes = grid_axes(grid, where)
    elsewhere = jobs > 1 or executor is not None
    own = {name: own_policy(entry, elsewhere=elsewhere) for name, entry in own_policies(grid).items()}
    store = Store(out)
    rows: list[Row] = []
    progress = Progress(0, 0, 0, 0)

    with _workers(jobs, executor, out) as workers:

        def run(asked: Sequence[Point]) -> list[Row]:
            # A search asks in rounds, and each of them adds to what was done before.
            before = progress

            def add(round_progress: Progress) -> None:
                nonlocal progress
                progress = before + round_progress
                if report is not None:
                    report(progress)

            asked = [replace(point, own=own.get(str(point.settings["policy"]))) for point in asked]
            new = run_points(asked, store, workers=workers, retry_failed=retry_failed, report=add)
            rows.extend(new)
            return new

        capacity = None
        if search is None:
            run([Point(settings, slo, price_usd_per_gpu_hour) for settings in expand(axes)])
        else:
            capacity = search_capacity(axes, search, run, slo=slo or "", price_usd_per_gpu_hour=price_usd_per_gpu_hour)
    table = table_of(rows)
    result = SweepResult(table, over_seeds(table), capacity, axes, limits, search, price_usd_per_gpu_hour)
    config = {
        "l4sim": __version__,
        "axes": axes,
        "slo": slo,
        "price_usd_per_gpu_hour": price_usd_per_gpu_hour,
        "search": search,
    }
    # After a search, policies have met different rates or instances.
    changes = result.changes if capacity is None else None
    tables = {"sweep": result.points, "means": result.means, "capacity": capacity}
    _write(out, config, {**tables, "changes": None if changes is None or changes.empty else changes})
    return result


def _workers(
    jobs: int, executor: Executor | str | None, out: Path
) -> AbstractContextManager[Processes | Executor | None]:
    if isinstance(executor, str):
        return executor_by_name(executor, out)
    if executor is not None or jobs == 1:
        return nullcontext(executor)
    return Processes(jobs)


def _write(out: Path, config: Mapping[str, Any], tables: Mapping[str, DataFrame | None]) -> None:
    try:
        write_json(out / "config.json", config)
        for name, table in tables.items():
            path = out / f"{name}.parquet"
            if table is None:
                path.unlink(missing_ok=True)
            else:
                table.to_parquet(path, index=False)
    except OSError as error:
        raise unwritable(out, error) from error
