"""Executors by name, against a real local cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest

from l4sim.errors import InputError
from l4sim.policies.policy import Policy, PolicyEntry
from l4sim.policies.routers import RoundRobin
from l4sim.sweeps.executors import executor_by_name
from l4sim.sweeps.own import own_policy
from l4sim.sweeps.runner import run_points
from l4sim.sweeps.store import Store


def with_own_policy(points):
    """The same under a policy that no worker can import."""
    own = own_policy(PolicyEntry("mine", lambda setting: Policy(RoundRobin())), elsewhere=True)
    return [*points, *(replace(point, settings={**point.settings, "policy": "mine"}, own=own) for point in points)]


@pytest.mark.slow
def test_a_dask_cluster_of_processes_gives_the_same_rows(make_points, tmp_path):
    distributed = pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    points = with_own_policy(make_points(seed=[0, 1, 2], kernel=[None, "fa9"]))
    with (
        # Workers that are forked from a server that has imported Dask and pandas, which each of them would do anew.
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        distributed.LocalCluster(n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None) as cluster,
        executor_by_name(f"dask={cluster.scheduler_address}", tmp_path) as executor,
    ):
        rows = run_points(points, Store(tmp_path / "dask"), workers=executor)
    assert rows == run_points(points, Store(tmp_path / "here"))


@pytest.mark.slow
def test_submitit_without_slurm_runs_local_processes(make_points, tmp_path):
    pytest.importorskip("submitit")
    # A process for each point: of the two, the one that no worker can import.
    [_, *points] = with_own_policy(make_points(seed=[0]))
    with executor_by_name("submitit=timeout_min=5", tmp_path) as executor:
        rows = run_points(points, Store(tmp_path / "jobs"), workers=executor)
    assert rows == run_points(points, Store(tmp_path / "here"))
    assert list((tmp_path / "submitit").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("ray", r"no executor 'ray': accepted are dask=ADDRESS, or submitit"),
        ("dask", r"no executor 'dask': accepted are dask=ADDRESS"),
        ("submitit=fast", r"submitit: 'fast' is no PARAMETER=VALUE"),
        ("submitit=speed=9", r"submitit: .*speed"),
        ("dask=nowhere", r"no dask scheduler answers at nowhere"),
    ],
)
def test_what_is_no_executor_is_refused(name, complaint, tmp_path):
    with pytest.raises(InputError, match=complaint), executor_by_name(name, tmp_path):
        pass
