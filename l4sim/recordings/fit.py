"""A profile from a recorded run alone: the seconds of its iterations, whatever they were spent on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from l4sim.calibration.datasheet import roofline_profile
from l4sim.calibration.points.tables import find_file
from l4sim.calibration.profile_json import provenance_json
from l4sim.calibration.whole_iterations import fit_whole_iterations
from l4sim.cost.profile import Profile
from l4sim.cost.whole_iterations import KERNEL, ModelSizes
from l4sim.errors import InputError
from l4sim.json_files import Count, Text, read_json
from l4sim.recordings.instance import find_gpu, find_model
from l4sim.recordings.own import ITERATIONS, read_iterations, read_recording, recognises
from l4sim.specs.gpu import GPU, GPUS, load_gpu


@dataclass(frozen=True, slots=True)
class _Hardware:
    device_name: Text
    device_type: Text
    device_memory_bytes: Count
    host_cpus: Count


@dataclass(frozen=True, slots=True)
class _Meta:
    hardware: _Hardware


_UNUSED = "not used: whole iterations were recorded"


def fit_recording(folder: Path, *, gpu: str | None = None) -> dict[str, Any]:
    """What ``profile.json`` holds for the engine, model and GPU of a recording; it serves no other model.

    ``gpu`` is a bundled GPU, for what costs do not depend on (its memory, its links); None takes the recorded one.

    Raises:
        InputError: a file or field that is missing or invalid, too few iterations, or an unknown GPU.
    """
    recording = read_recording(folder)
    model, iterations = find_model(recording, None), read_iterations(folder)
    device = recorded_gpu(folder, gpu)
    # A config.json goes by its folder's name otherwise.
    model = replace(model, name=Path(recording.engine.model).name)
    tensor_parallel = recording.engine.tensor_parallel
    try:
        found = fit_whole_iterations(
            [iteration.batch for iteration in iterations],
            [iteration.seconds for iteration in iterations],
            ModelSizes.of(model),
            tensor_parallel,
        )
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    engine = f"vLLM {recording.engine.version}" if recording.engine.version else None
    source = f"ours: {len(iterations)} iterations of {folder.name}, {fingerprint(folder)}"
    base = roofline_profile(device)
    unused = {
        section: base[section] | {"source": _UNUSED} for section in ("linear", "elementwise", "operators", "all_reduce")
    }
    return {
        **base,
        **unused,
        "name": f"{model.name}-{folder.name}",
        "measured": True,
        "provenance": provenance_json(source, "as the recording's", kernels=engine),
        "default_kernel": KERNEL,
        "kernels": {KERNEL: {"coefficients": {}, "errors": {"iterations": found.errors}, "source": source}},
        "host_overhead": {"seconds": 0.0, "source": "in the iterations"},
        "iterations": [to_builtins(found.fitted)],
    }


def fingerprint(folder: Path) -> str:
    """What tells a recording from every other: the beginning of its iterations' SHA-256."""
    return hashlib.sha256(find_file(folder, ITERATIONS).read_bytes()).hexdigest()[:16]


def refuse_own_profile(profile: Profile, folder: Path) -> None:
    """Check that a profile was not fitted to the very run that it is to predict.

    Raises:
        InputError: it was.
    """
    if profile.iterations and recognises(folder) and fingerprint(folder) in profile.provenance.source:
        raise InputError(
            f"profile {profile.name} was fitted to {folder}, which it is to predict: fit it to another run"
        )


def recorded_gpu(folder: Path, given: str | None) -> GPU:
    """The device of a recording: the bundled one of its name, or a CPU as it described itself.

    Raises:
        InputError: it is not bundled.
    """
    if given is not None:
        return load_gpu(given)
    hardware = read_json(folder / "meta.json", _Meta, others=True).hardware
    if hardware.device_type == "cpu":
        return GPU(
            name="cpu",
            sms=hardware.host_cpus,
            memory_bytes=hardware.device_memory_bytes,
            memory_bytes_per_s=1e11,
            bf16_flops=1e12,
            l2_bytes=1 << 20,
            link_bytes_per_s=1e10,
            source=f"{hardware.device_name}; bandwidth, arithmetic and links are assumed, not used by iterations",
        )
    gpu = find_gpu(hardware.device_name)
    if gpu is None:
        raise InputError(
            f"{folder}: GPU {hardware.device_name} is not bundled; name the nearest by --gpu: {', '.join(GPUS)}"
        )
    return gpu
