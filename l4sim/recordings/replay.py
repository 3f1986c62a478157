"""A recorded run replayed on one simulated instance, and its latencies held against the simulator's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from l4sim.cost.host import HostOverhead
from l4sim.errors import InputError
from l4sim.experiment import Setup, run_policy
from l4sim.recordings.comparison import Validation, compare_latencies, compare_throughput
from l4sim.recordings.fit import refuse_own_profile
from l4sim.recordings.formats import read_recording
from l4sim.recordings.instance import assumptions, find_model, find_profile, one_instance, refuse_untold
from l4sim.recordings.recording import Recording
from l4sim.results.run import Run
from l4sim.specs.front_end import OFF, VLLM
from l4sim.workload.trace import Trace

_FRONT_ENDS = {"engine": OFF, "client": VLLM}
"""What stands before the engine, by whose clock latencies are."""


@dataclass(frozen=True, slots=True)
class Replayable:
    """A recording with the simulated instance that stands for its engine."""

    recording: Recording
    setup: Setup
    kv_blocks_from: str
    """Where the number of KV blocks comes from."""
    assumptions: tuple[str, ...] = ()
    """What the instance has because the recording does not tell."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """Options that stand in for what was recorded, or was not."""

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.recording.folder.name

    def with_host(self, host: HostOverhead) -> Replayable:
        """The same with other host constants."""
        profile = replace(self.setup.profile, host=host)
        front_end = self.setup.options.front_end
        setup, _ = one_instance(self.recording.engine, self.setup.model, profile, front_end, self.given)
        return replace(self, setup=setup)

    def with_front_end(self, front_end: str) -> Replayable:
        """The same behind another front end, by name or by its seconds."""
        return replace(self, setup=replace(self.setup, options=replace(self.setup.options, front_end=front_end)))


def validate_vllm(
    folder: Path,
    *,
    profile: str | None = None,
    model: str | None = None,
    gpu: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Validation:
    """Replay a recording's requests on one simulated instance of the recorded engine, and compare latencies.

    ``folder`` is one of the folders or files in `l4sim.recordings.formats`. ``options``, of `Options` by name, stand in
    for what was recorded of the engine, or was not.

    ``profile`` is a bundled name or a folder with ``profile.json``; None imports the folder's own measurements of
    kernels, ``profile/``, or takes the recorded GPU's. ``model`` and ``gpu`` stand in for what ``meta.json`` and
    ``meta.yaml`` name. Nothing is fitted to the recorded requests. A request arrives when the engine queued it; where
    clients measured, when its client sent it, and then vLLM's front end stands before the engine.

    Raises:
        InputError: a file or field that is missing or invalid, an unknown model or GPU, an engine that is not modelled.
    """
    return predict(replayable(folder, profile=profile, model=model, gpu=gpu, options=options))


def replayable(
    folder: Path,
    *,
    profile: str | None = None,
    model: str | None = None,
    gpu: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Replayable:
    """Read a recording, and make the instance that stands for its engine; for the arguments see `validate_vllm`.

    Raises:
        InputError: as `validate_vllm`.
    """
    recording, given = read_recording(folder), options or {}
    refuse_untold(recording, model=model, profile=profile, gpu=gpu)
    ran = find_model(recording, model)
    used = find_profile(recording, ran, profile, gpu)
    refuse_own_profile(used, folder)
    front_end = _FRONT_ENDS[recording.measured_at]
    setup, blocks_from = one_instance(recording.engine, ran, used, front_end, given)
    return Replayable(recording, setup, blocks_from, assumptions(recording, setup, given), given)


def predict(replayed: Replayable) -> Validation:
    """Replay a recording, and compare.

    Raises:
        InputError: a request that cannot be served to its end.
    """
    recording, setup = replayed.recording, replayed.setup
    run = replay(recording, setup)
    return Validation(
        compare_latencies(recording.requests, run),
        compare_throughput(recording.requests, run),
        len(recording.requests.request_id),
        int(run.requests["preemptions"].sum()),
        setup,
        replayed.kv_blocks_from,
        run,
        replayed.assumptions,
    )


def replay(recording: Recording, setup: Setup) -> Run:
    """The recorded requests on a simulated cluster.

    Raises:
        InputError: a request that cannot be served to its end there.
    """
    run = run_policy("round-robin", _trace(recording), setup)
    unfinished = run.requests["status"] != "finished"
    if unfinished.any():
        first = run.requests[unfinished].iloc[0]
        raise InputError(f"{recording.folder}: request {first['request_id']} cannot be replayed: {first['reason']}")
    return run


def _trace(recording: Recording) -> Trace:
    recorded = recording.requests
    count = len(recorded.request_id)
    nobody = np.full(count, -1)
    return Trace(
        name=recording.folder.name,
        request_id=recorded.request_id,
        arrival_s=recorded.arrival_s,
        prompt_tokens=recorded.prompt_tokens,
        output_tokens=recorded.output_tokens,
        session=nobody,
        after=nobody,
        delay_s=np.full(count, np.nan),
        prefix=recorded.prefix,
    )
