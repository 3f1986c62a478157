"""Replaying a recorded vLLM run on one simulated instance, and comparing the two."""

from __future__ import annotations

import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l4sim.cost.build import build_cost
from l4sim.cost.profile import Profile, load_profile
from l4sim.cost.profile_fit import write_profile
from l4sim.cost.profile_import import import_profile, read_meta
from l4sim.engine.config import EngineConfig
from l4sim.errors import InputError
from l4sim.experiment import Options, Setup, run_policy
from l4sim.results.run import Run
from l4sim.specs.gpu import GPU, GPUS, load_gpu
from l4sim.specs.memory import kv_blocks
from l4sim.specs.model import Model, list_models, load_model
from l4sim.specs.placement import Placement
from l4sim.validation.recorded import EngineOptions, RecordedRequests, read_engine_options, read_requests
from l4sim.workload.trace import Trace

_PROFILE = "profile"
_METRICS = ("ttft_s", "tpot_s", "e2e_s")


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of the run, measured and predicted; seconds."""

    metric: str
    measured: float
    predicted: float
    error_pct: float
    """(predicted - measured) / measured, percent."""


@dataclass(frozen=True, slots=True)
class Validation:
    """A recorded run against its replay."""

    figures: tuple[Figure, ...]
    requests: int
    preemptions: int
    setup: Setup
    kv_blocks_from: str
    """Where the number of KV blocks comes from."""
    run: Run

    def beyond(self, tolerance_pct: float) -> tuple[Figure, ...]:
        """The figures whose error is larger than so many percent, or no number at all."""
        return tuple(figure for figure in self.figures if not abs(figure.error_pct) <= tolerance_pct)

    def to_json(self) -> dict[str, Any]:
        """Figures and what they were predicted with, as plain values."""
        return {
            "figures": [asdict(figure) for figure in self.figures],
            "requests": self.requests,
            "preemptions": self.preemptions,
            "kv_blocks_from": self.kv_blocks_from,
            "config": self.setup.describe(),
        }


def validate_vllm(
    folder: Path, *, profile: str | None = None, model: str | None = None, gpu: str | None = None
) -> Validation:
    """Replay a folder's requests on one simulated instance of the recorded engine.

    ``profile`` is a bundled name or a folder with ``profile.json``; None imports the folder's own measurements of
    kernels, ``profile/``. ``model`` and ``gpu`` stand in for what ``meta.json`` and ``meta.yaml`` name. Nothing is
    fitted to the recorded requests. A request arrives when the engine queued it.

    Raises:
        InputError: a file or field that is missing or invalid, an unknown model or GPU, an engine that is not modelled.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    engine, recorded = read_engine_options(folder), read_requests(folder)
    found = _model(folder, engine.model, model)
    used = _profile(folder, engine, found, gpu) if profile is None else load_profile(profile)
    setup, blocks_from = _setup(engine, found, used)
    run = run_policy("round-robin", _trace(folder, recorded), setup, _no_plan)
    unfinished = run.requests["status"] != "finished"
    if unfinished.any():
        first = run.requests[unfinished].iloc[0]
        raise InputError(f"{folder}: request {first['request_id']} cannot be replayed: {first['reason']}")
    return Validation(
        _figures(recorded, run),
        len(recorded.request_id),
        int(run.requests["preemptions"].sum()),
        setup,
        blocks_from,
        run,
    )


def find_gpu(device: str) -> GPU | None:
    """The bundled GPU of a CUDA device name (``NVIDIA H100 80GB HBM3``); None for one that is not bundled.

    PCIe and NVL cards carry the names of faster SXM ones: they are not taken for them.
    """
    words = set(re.split(r"[^a-z0-9]+", device.lower()))
    if words & {"pcie", "nvl"}:
        return None
    for name, gpu in GPUS.items():
        # What tells GPUs apart; form factor and memory are not always in CUDA's names.
        if all(part in words for part in name.split("-") if part != "sxm" and not part.endswith("gb")):
            return gpu
    return None


def _model(folder: Path, recorded: str, given: str | None) -> Model:
    if given is not None:
        return load_model(given)
    for path in (folder / "config.json", folder / _PROFILE / "config.json"):
        if path.is_file():
            return load_model(str(path))
    name = Path(recorded).name.lower().removesuffix("-instruct")
    if name not in list_models():
        raise InputError(
            f"{folder / 'meta.json'}: model {recorded} is not bundled: add its config.json to the folder, or name it "
            f"by --model; bundled are {', '.join(list_models())}"
        )
    return load_model(name)


def _profile(folder: Path, engine: EngineOptions, model: Model, gpu: str | None) -> Profile:
    """The profile that stands in the folder, imported unless it has been already."""
    source = folder / _PROFILE
    if (source / "profile.json").is_file():
        return load_profile(str(source))
    if not source.is_dir():
        raise InputError(f"{folder}: no {_PROFILE}/ to import; name a profile by --profile")
    imported = import_profile(source, _gpu(source, engine, gpu), model, tensor_parallel=engine.tensor_parallel)
    with tempfile.TemporaryDirectory() as made:
        write_profile(imported, Path(made))
        return load_profile(made)


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


def _setup(engine: EngineOptions, model: Model, profile: Profile) -> tuple[Setup, str]:
    blocks, blocks_from = engine.kv_blocks, "recorded, less vLLM's null block"
    if blocks is None:
        blocks_from = f"derived: what vLLM leaves of {engine.gpu_memory_utilization:g} of {profile.gpu.name}'s memory"
        blocks = kv_blocks(
            model,
            profile.gpu,
            engine.tensor_parallel,
            utilization=engine.gpu_memory_utilization,
            block_tokens=engine.block_tokens,
            max_num_batched_tokens=engine.max_num_batched_tokens,
            max_num_seqs=engine.max_num_seqs,
        )
    options = Options(
        instances=1,
        model=model.name,
        profile=profile.name,
        tensor_parallel=engine.tensor_parallel,
        gpu_memory_utilization=engine.gpu_memory_utilization,
        max_model_len=engine.max_model_len or model.max_model_len,
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        block_size=engine.block_tokens,
        kv_blocks=blocks,
        prefix_caching=engine.prefix_caching,
        reserve_full_prompt=engine.reserve_full_prompt,
        async_scheduling=engine.async_scheduling,
    )
    cost = build_cost(
        profile,
        model,
        tensor_parallel=engine.tensor_parallel,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        max_num_seqs=engine.max_num_seqs,
    )
    config = EngineConfig(
        kv_blocks=blocks,
        max_model_len=engine.max_model_len or model.max_model_len,
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        block_tokens=engine.block_tokens,
        prefix_caching=engine.prefix_caching,
        reserve_full_prompt=engine.reserve_full_prompt,
        async_scheduling=engine.async_scheduling,
    )
    return Setup(options, model, profile, Placement(1, engine.tensor_parallel), config, cost), blocks_from


def _trace(folder: Path, recorded: RecordedRequests) -> Trace:
    count = len(recorded.request_id)
    nobody = np.full(count, -1)
    return Trace(
        name=folder.name,
        request_id=recorded.request_id,
        arrival_s=recorded.arrival_s,
        prompt_tokens=recorded.prompt_tokens,
        output_tokens=recorded.output_tokens,
        session=nobody,
        after=nobody,
        delay_s=np.full(count, np.nan),
    )


def _no_plan() -> Any:
    raise AssertionError("one instance needs no plan")


def _figures(recorded: RecordedRequests, run: Run) -> tuple[Figure, ...]:
    figures = []
    for metric in _METRICS:
        measured, predicted = getattr(recorded, metric), run.requests[metric].to_numpy()
        for statistic, compute in (("mean", np.nanmean), ("p99", _p99)):
            if np.isfinite(measured).any():
                figures.append(_figure(f"{metric}_{statistic}", float(compute(measured)), float(compute(predicted))))
    return tuple(figures)


def _figure(metric: str, measured: float, predicted: float) -> Figure:
    return Figure(metric, measured, predicted, 100 * (predicted - measured) / measured if measured else float("nan"))


def _p99(values: NDArray[np.float64]) -> float:
    """Linear interpolation, as the results' own percentiles."""
    return float(np.nanpercentile(values, 99))
