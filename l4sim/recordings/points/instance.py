"""The simulated instance of a point, and the closed loop that is sent to it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from l4sim.cost.profile import Profile, list_profiles, load_profile
from l4sim.errors import InputError
from l4sim.experiment import Options, Setup, resolve
from l4sim.recordings.points.flags import INFERENCEX_LEAST, flags_of, is_inferencex
from l4sim.recordings.points.models import find_model
from l4sim.recordings.points.rows import Point, Ranks
from l4sim.specs.engine_defaults import SGLANG, nearest_rules
from l4sim.specs.front_end import VLLM
from l4sim.specs.gpu import load_gpu
from l4sim.specs.model import Model, with_kv_dtype
from l4sim.workload.synth import AtOnce, Coupled, Uniform, synthesize
from l4sim.workload.trace import Trace
from l4sim.workload.transform import with_concurrency

ENGINES = ("vllm", "sglang")


def setup_of(point: Point, models: Path | None = None) -> Setup:
    """One instance as the point's row and the benchmark's scripts describe it.

    Raises:
        InputError: a model, GPU or engine that is not known, or one that is not simulated: the reason.
    """
    flags = flags_of(point)
    model = _model(point.model, point.weights, point.expert_weights, flags.kv_dtype, models)
    ranks = point.ranks
    if flags.ignores_attention_dp and ranks.attention_dp > 1:
        ranks = Ranks(ranks.gpus, 1, ranks.expert)
    options = Options(
        instances=1,
        model=model.name,
        tensor_parallel=ranks.tensor,
        attention_dp=ranks.attention_dp,
        expert_parallel=ranks.expert,
        engine_rules=_rules(point),
        gpu_memory_utilization=flags.memory,
        max_num_seqs=point.concurrency,
        max_num_batched_tokens=max(flags.tokens(point.prompt_tokens), point.concurrency),
        scheduler_recv_interval=flags.recv_interval(point.concurrency) if point.engine == "sglang" else 1,
        prefix_caching=False,
        front_end=VLLM,
    )
    profile = _profile(point)
    return resolve(replace(options, profile=profile.name), model=model, profile=profile)


def closed_loop(point: Point, requests_per_place: int) -> Trace:
    """So many requests per place in flight, of the point's lengths: InferenceX's drawn, all others' equal."""
    least = INFERENCEX_LEAST if is_inferencex(point) else 1
    lengths = Coupled(
        Uniform(int(least * point.prompt_tokens), point.prompt_tokens),
        Uniform(int(least * point.output_tokens), point.output_tokens),
    )
    made = synthesize(lengths, AtOnce(), seed=0, requests=requests_per_place * point.concurrency)
    return with_concurrency(made, point.concurrency)


@lru_cache(maxsize=32)
def _model(name: str, weights: str | None, experts: str | None, kv_dtype: str | None, models: Path | None) -> Model:
    model = find_model(name, weights, experts, models)
    return model if kv_dtype is None else with_kv_dtype(model, kv_dtype)


def _rules(point: Point) -> str:
    """The engine rules nearest to the version that ran."""
    if point.engine not in ENGINES:
        raise InputError(f"engine {point.engine}: accepted are {' and '.join(ENGINES)}")
    return SGLANG if point.engine == "sglang" else nearest_rules(point.version)[0]


def _profile(point: Point) -> Profile:
    """What was measured with the point's engine on its GPU, or else with any."""
    gpu = load_gpu(point.gpu.lower().replace("_", "-")).name
    known = list_profiles()
    name = next((name for name in (f"{gpu}-{point.engine}", gpu) if name in known), None)
    if name is None:
        raise InputError(f"no profile of {gpu} is bundled")
    return _loaded(name)


@lru_cache(maxsize=8)
def _loaded(name: str) -> Profile:
    return load_profile(name)
