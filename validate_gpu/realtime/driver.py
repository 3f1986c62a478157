"""Processes of a realtime run: one per GPU or group of CPUs, joined by sockets, and gone when it is over."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, TypeAlias, cast

import torch

from l4sim.engine.rules import engine_named
from l4sim.errors import InputError
from l4sim.experiment import Setup, policy_for, tables
from l4sim.policies.agent import FRONT_END
from l4sim.policies.plan import Plans, SharedPlans
from l4sim.runtime.executor import ExecutionError
from l4sim.runtime.migration.methods import MigrationRules
from l4sim.workload.trace import Trace
from validate_gpu.decisions import Call, RecordingAgent, record_decisions
from validate_gpu.live.build import LiveOptions, describe_device
from validate_gpu.live.device import open_device
from validate_gpu.live_run import LiveResult, LiveRun
from validate_gpu.lockstep import stepwise
from validate_gpu.realtime.clock import WallClock
from validate_gpu.realtime.front_end import RealtimeFrontEnd
from validate_gpu.realtime.wire import Failed, Goodbye, Link, Lost, Ready, Start
from validate_gpu.realtime.worker import WorkerSpec, run_worker

Socket: TypeAlias = "Connection[Any, Any]"

# From the last worker's being ready to the first arrival: all have then read the start.
_LEAD_S = 0.2
_GOODBYE_S = 10.0


def realtime(
    trace: Trace,
    policies: Sequence[str],
    setup: Setup,
    options: LiveOptions,
    *,
    share_devices: bool = False,
    repeats: int = 1,
    on_run: Callable[[LiveRun], None] | None = None,
) -> LiveResult:
    """Replay the trace by the wall's clock under each policy in turn, with processes of its own; ``repeats`` times.

    ``share_devices``: let several instances share one device, and each other's time with it. A run that a worker fails
    keeps its finished requests; the others have failed, with the reason.

    Raises:
        InputError: tensor parallelism or prefix caching, more instances than devices, or a device that does not suit.
        ExecutionError: a worker could not start.
    """
    setup = stepwise(setup)
    devices = device_groups(setup.instances, options.device, share_devices)
    plans = SharedPlans()
    runs: dict[str, list[LiveRun]] = {name: [] for name in policies}
    for _ in range(repeats):
        for name in policies:
            live = _run(name, trace, setup, plans, replace(options, shared=share_devices), devices)
            runs[name].append(live)
            if on_run is not None:
                on_run(live)
    return LiveResult(runs, {**describe_device(open_device(options.device)), "threads": options.threads})


def device_groups(instances: int, device: str, share: bool) -> list[tuple[str, frozenset[int]]]:
    """Each instance's device, and the CPUs that its process may use.

    On GPUs, one each and an even part of the CPUs; on a CPU, an even part of its cores.

    Raises:
        InputError: there are fewer devices than instances, and they are not to be shared.
    """
    cpus = sorted(os.sched_getaffinity(0))
    on_gpu = open_device(device).type == "cuda"
    count = torch.cuda.device_count() if on_gpu else len(cpus)
    if instances > count and not share:
        raise InputError(
            f"{instances} instances for {count} {'GPUs' if on_gpu else 'CPU cores'}: accepted is --instances {count} "
            "or fewer, or --share-devices, whose instances slow one another; lockstep takes any number"
        )
    parts = [frozenset(cpus[number % len(cpus) :: instances]) or frozenset(cpus) for number in range(instances)]
    return [(f"cuda:{number % count}" if on_gpu else "cpu", parts[number]) for number in range(instances)]


def _run(
    name: str,
    trace: Trace,
    setup: Setup,
    plans: Plans,
    options: LiveOptions,
    devices: Sequence[tuple[str, frozenset[int]]],
) -> LiveRun:
    """One policy's run, on new processes."""
    policy = policy_for(name, trace, setup, plans)
    calls: list[Call] = []
    recorded = record_decisions(policy, calls)
    own, theirs = _sockets(len(devices))
    # A forked process could not use CUDA.
    context = get_context("spawn")
    processes: list[BaseProcess] = []
    links: dict[int, Link] = {}
    try:
        for number, (device, cpus) in enumerate(devices):
            spec = WorkerSpec(
                number=number,
                model=setup.model,
                engine=setup.engine,
                engine_rules=setup.options.engine_rules,
                options=replace(options, device=device),
                seed=setup.options.seed,
                cpus=cpus,
                agent=cast(RecordingAgent, recorded.agents[number]) if recorded.agents else None,
                migration=MigrationRules(),
                connections=theirs[number],
            )
            processes.append(context.Process(target=run_worker, args=(spec,), daemon=True))
            processes[-1].start()
            # The process has its own copies now; these would keep its peers from noticing its end.
            for connection in theirs[number].values():
                connection.close()
        inbox: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        links = {number: Link(connection, number, inbox) for number, connection in own.items()}
        _wait_until_ready(inbox, len(devices))
        epoch_s = time.monotonic() + _LEAD_S
        for link in links.values():
            link.send(Start(epoch_s))
        front_end = RealtimeFrontEnd(
            trace,
            recorded,
            setup.engine,
            links,
            WallClock(epoch_s),
            engine_named(setup.options.engine_rules),
            view_age_s=setup.options.view_age_s,
        )
        result = front_end.run(inbox)
    finally:
        for link in links.values():
            link.send(Goodbye())
        for process in processes:
            process.join(_GOODBYE_S)
            if process.is_alive():
                process.terminate()
        for link in links.values():
            link.close(_GOODBYE_S)
    run = tables(name, trace, result, policy)
    return LiveRun(run, front_end.executed, (), calls + front_end.agents_calls, policy.partition)


def _sockets(instances: int) -> tuple[dict[int, Socket], list[dict[int, Socket]]]:
    """A socket between the front end and every instance, and between any two instances.

    Returns the front end's ends by instance, and each instance's ends by the address at the other end.
    """
    own: dict[int, Socket] = {}
    theirs: list[dict[int, Socket]] = [{} for _ in range(instances)]
    for number in range(instances):
        own[number], theirs[number][FRONT_END] = Pipe()
        for peer in range(number):
            theirs[number][peer], theirs[peer][number] = Pipe()
    return own, theirs


def _wait_until_ready(inbox: SimpleQueue[tuple[int, Any]], instances: int) -> None:
    """Wait until every engine is warm.

    Raises:
        ExecutionError: one cannot start.
    """
    ready = 0
    while ready < instances:
        number, message = inbox.get()
        match message:
            case Ready():
                ready += 1
            case Failed(reason):
                raise ExecutionError(f"instance {number} cannot start: {reason}")
            case Lost():
                raise ExecutionError(f"instance {number} cannot start: its process has ended")
