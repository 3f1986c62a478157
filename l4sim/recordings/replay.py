"""A recorded run replayed on one simulated instance, and its latencies held against the simulator's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from l4sim.errors import InputError
from l4sim.experiment import Setup, run_policy
from l4sim.recordings.comparison import Validation, compare_latencies
from l4sim.recordings.formats import read_recording
from l4sim.recordings.instance import assumptions, find_model, find_profile, one_instance
from l4sim.recordings.recording import Recording
from l4sim.results.run import Run
from l4sim.workload.trace import Trace


def validate_vllm(
    folder: Path, *, profile: str | None = None, model: str | None = None, gpu: str | None = None
) -> Validation:
    """Replay a folder's requests on one simulated instance of the recorded engine, and compare latencies.

    ``profile`` is a bundled name or a folder with ``profile.json``; None imports the folder's own measurements of
    kernels, ``profile/``. ``model`` and ``gpu`` stand in for what ``meta.json`` and ``meta.yaml`` name. Nothing is
    fitted to the recorded requests. A request arrives when the engine queued it.

    Raises:
        InputError: a file or field that is missing or invalid, an unknown model or GPU, an engine that is not modelled.
    """
    recording = read_recording(folder)
    ran = find_model(recording, model)
    setup, blocks_from = one_instance(recording.engine, ran, find_profile(recording, ran, profile, gpu))
    run = replay(recording, setup)
    return Validation(
        compare_latencies(recording.requests, run),
        len(recording.requests.request_id),
        int(run.requests["preemptions"].sum()),
        setup,
        blocks_from,
        run,
        assumptions(recording.engine, setup),
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
