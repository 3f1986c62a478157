"""The simulated instance that stands for a recorded engine: its model, its profile, its options."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from l4sim.calibration.importers.llmservingsim import import_llmservingsim, read_meta
from l4sim.calibration.profile_json import write_profile
from l4sim.cost.communication import nearest_tables
from l4sim.cost.profile import Profile, list_profiles, load_profile
from l4sim.errors import InputError
from l4sim.experiment import Options, Setup, resolve
from l4sim.recordings.recording import EngineOptions, Recording
from l4sim.specs.engine_defaults import defaults_of
from l4sim.specs.front_end import OFF
from l4sim.specs.gpu import GPU, GPUS, load_gpu
from l4sim.specs.model import Model, list_models, load_model

_PROFILE = "profile"


def one_instance(
    engine: EngineOptions,
    model: Model,
    profile: Profile,
    front_end: str = OFF,
    given: Mapping[str, Any] | None = None,
) -> tuple[Setup, str]:
    """A cluster of one instance with the recorded engine's options, and where its number of KV blocks comes from.

    ``front_end`` is what stands before it, by name or by its seconds; ``given`` are options by name that stand in for
    what was recorded, or was not.

    Raises:
        InputError: the model does not fit the GPU, or the profile has nothing for it.
    """
    options = Options(
        instances=1,
        model=model.name,
        profile=profile.name,
        tensor_parallel=engine.tensor_parallel,
        engine_rules=engine.engine_rules,
        gpu_memory_utilization=engine.gpu_memory_utilization,
        max_model_len=engine.max_model_len,
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        block_size=engine.block_tokens,
        kv_blocks=engine.kv_blocks,
        prefix_caching=engine.prefix_caching,
        reserve_full_prompt=engine.reserve_full_prompt,
        async_scheduling=engine.async_scheduling,
        scheduling_policy=engine.scheduling_policy,
        long_prefill_token_threshold=engine.long_prefill_token_threshold,
        front_end=front_end,
    )
    given = given or {}
    options = replace(options, **given)
    if "kv_blocks" in given:
        blocks_from = "as given"
    elif engine.kv_blocks is None:
        share = options.gpu_memory_utilization or defaults_of(options.engine_rules).gpu_memory_utilization
        blocks_from = f"derived: what vLLM leaves of {share:g} of {profile.gpu.name}'s memory"
    else:
        blocks_from = "recorded, less vLLM's null block"
    ran = _of_version(profile, engine.version, options.tensor_parallel)
    return resolve(options, model=model, profile=ran), blocks_from


def _of_version(profile: Profile, version: str | None, tensor_parallel: int) -> Profile:
    """A profile with the all-reduces of the version that ran, where it is recorded: rules may be of another."""
    if version is None:
        return profile
    tables = [table for table in profile.all_reduce if table.gpus == tensor_parallel]
    return replace(profile, all_reduce=tuple(nearest_tables(tables, f"vllm-{version}").values()))


def refuse_untold(recording: Recording, *, model: str | None, profile: str | None, gpu: str | None) -> None:
    """Check that model and GPU are known of a recording that tells nothing of its engine.

    Raises:
        InputError: one of them is not.
    """
    if _tells_engine(recording):
        return
    untold = []
    if model is None and _bundled_name(recording.engine.model) is None:
        untold.append(f"which model {recording.engine.model or 'it was'} (--model)")
    if profile is None and gpu is None:
        untold.append("which GPU (--gpu, or --profile)")
    if untold:
        raise InputError(f"{recording.folder}: what clients measured does not tell {' nor '.join(untold)}")


def assumptions(recording: Recording, setup: Setup, given: Mapping[str, Any]) -> tuple[str, ...]:
    """What the simulated instance has because neither the recording tells it nor was it given, in a line each."""
    engine = recording.engine
    limits = {
        "max_num_seqs": (engine.max_num_seqs, setup.engine.max_num_seqs),
        "max_num_batched_tokens": (engine.max_num_batched_tokens, setup.engine.max_num_batched_tokens),
    }
    missing = {name: used for name, (recorded, used) in limits.items() if recorded is None}
    if not _tells_engine(recording):
        missing |= {name: getattr(setup.options, name) for name in ("tensor_parallel", "prefix_caching")}
    lines = [] if engine.rules_note is None or "engine_rules" in given else [engine.rules_note]
    untold = [f"{name} {used}" for name, used in missing.items() if name not in given]
    if untold:
        given_by = f"{setup.options.engine_rules}'s defaults for serving on {setup.profile.gpu.name}"
        lines.append(f"not recorded, so {given_by}: {', '.join(untold)}")
    if engine.beside:
        lines.append(f"recorded, and not modelled, so that the engine may be slower: {', '.join(engine.beside)}")
    return tuple(lines)


def _tells_engine(recording: Recording) -> bool:
    return (recording.folder / "meta.json").is_file()


def _bundled_name(recorded: str) -> str | None:
    name = Path(recorded).name.lower().removesuffix("-instruct")
    return name if name in list_models() else None


def find_model(recording: Recording, given: str | None) -> Model:
    """The model that the engine ran.

    In this order: the one ``given`` (a bundled name or a ``config.json``), a ``config.json`` in the recording's
    folder, the shape that the recording tells, the bundled model of the recorded name.

    Raises:
        InputError: none of these.
    """
    if given is not None:
        return load_model(given)
    for path in (recording.folder / "config.json", recording.folder / _PROFILE / "config.json"):
        if path.is_file():
            return load_model(str(path))
    if recording.model is not None:
        return recording.model
    recorded = recording.engine.model
    name = _bundled_name(recorded)
    if name is None:
        raise InputError(
            f"{recording.folder / 'meta.json'}: model {recorded} is not bundled: add its config.json to the folder, or "
            f"name it by --model; bundled are {', '.join(list_models())}"
        )
    return load_model(name)


def find_profile(recording: Recording, model: Model, given: str | None, gpu: str | None) -> Profile:
    """The profile of the GPU that the engine ran on.

    In this order: the one ``given`` (a bundled name or a folder), ``profile/profile.json`` in the recording's folder,
    one fitted to the measurements of kernels in ``profile/``, and where there is no such folder the bundled one that
    is called like the recorded GPU, or of its tables where the model's layers need some. ``gpu`` names the GPU in place
    of the recorded one.

    Raises:
        InputError: none of these, or a GPU that is not bundled.
    """
    if given is not None:
        return load_profile(given)
    source = recording.folder / _PROFILE
    if (source / "profile.json").is_file():
        return load_profile(str(source))
    if not source.is_dir():
        own = load_gpu(gpu) if gpu is not None else find_gpu(recording.engine.device or "")
        if own is None or own.name not in list_profiles():
            raise InputError(f"{recording.folder}: no {_PROFILE}/ to import; name a profile by --profile")
        tables = f"{own.name}-vllm"
        return load_profile(tables if model.beyond_dense and tables in list_profiles() else own.name)
    tensor_parallel = recording.engine.tensor_parallel
    imported = import_llmservingsim(source, _gpu(source, recording.engine, gpu), model, tensor_parallel=tensor_parallel)
    with tempfile.TemporaryDirectory() as made:
        write_profile(imported, Path(made))
        return load_profile(made)


def find_gpu(device: str) -> GPU | None:
    """The bundled GPU of a CUDA device name (``NVIDIA H100 80GB HBM3``); None for one that is not bundled.

    PCIe and NVL cards carry the names of faster SXM ones: they are not taken for them.
    """
    words = set(re.split(r"[^a-z0-9]+", device.lower()))
    if words & {"pcie", "nvl"}:
        return None
    for name, gpu in GPUS.items():
        # The words that tell GPUs apart; form factor and memory are not always in CUDA's names.
        if all(part in words for part in name.split("-") if part != "sxm" and not part.endswith("gb")):
            return gpu
    return None


def _gpu(source: Path, engine: EngineOptions, given: str | None) -> GPU:
    if given is not None:
        return load_gpu(given)
    device = engine.device or read_meta(source).get("gpu")
    if device is None:
        raise InputError(f"{source}: neither meta.yaml nor meta.json names the GPU; name it by --gpu")
    gpu = find_gpu(device)
    if gpu is None:
        raise InputError(f"{source}: GPU {device} is not bundled; name the nearest by --gpu: {', '.join(GPUS)}")
    return gpu
