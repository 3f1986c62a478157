"""What of a run's seconds was measured, and what was not: said wherever its figures are printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from l4sim.cost.attention.part import AttentionSetting
from l4sim.cost.build import DEEPEP, attention_parts, exchanged, measured_layer
from l4sim.cost.communication import AllReduce, all_reduce_among
from l4sim.cost.profile import Profile
from l4sim.cost.tables.stages import HEAD, Stages
from l4sim.specs.model import Model
from l4sim.specs.options import DEFAULTS
from l4sim.specs.parallelism import ONE_GPU, Parallelism

MEASURED = "measured"
ROOFLINE = "roofline, not measured"


def basis_of(
    profile: Profile,
    model: Model,
    kernel: str,
    parallelism: Parallelism | int = ONE_GPU,
    all_reduce: AllReduce | None = None,
    *,
    expert_load: str = DEFAULTS.expert_load,
    expert_exchange: str = DEFAULTS.expert_exchange,
) -> str:
    """What the seconds of a model's iterations on a profile rest on, in a few words.

    ``measured`` alone covers all that the iterations use; else what it does not cover is named. The ``all_reduce`` of
    tensor parallelism (a number is one of GPUs) is told apart, with its source.
    """
    if profile.iterations:
        # Whole ones were, with all that was in them.
        return "measured"
    split = Parallelism(parallelism) if isinstance(parallelism, int) else parallelism
    if profile.tables:
        parts = _table_parts(profile, model, kernel, split, expert_load, expert_exchange)
    else:
        parts = _parts(profile, model, kernel, split.tensor)
    told: dict[str, bool] = {}
    for name, measured in parts:
        told[name] = told.get(name, True) and measured
    text = _told(told)
    return text if all_reduce is None else f"{text}; {all_reduce_basis(all_reduce, split.tensor)}"


def all_reduce_basis(all_reduce: AllReduce, gpus: int) -> str:
    """What the tensor-parallel part rests on."""
    return f"all-reduce among {gpus} {'measured in' if all_reduce.measured else 'estimated'} {all_reduce.source}"


def _parts(profile: Profile, model: Model, kernel: str, tensor_parallel: int) -> Iterator[tuple[str, bool]]:
    """The parts of an iteration, and whether each was measured: what was has errors."""
    yield kernel, bool(profile.kernels[kernel].errors)
    if not all(measured_layer(profile, model, group, tensor_parallel) for group in model.groups):
        yield "matrix products", bool(profile.errors["linear"])
        yield "element-wise kernels", bool(profile.errors["elementwise"])
    yield "host time", bool(profile.errors["iteration"])


def _table_parts(
    profile: Profile, model: Model, kernel: str, parallelism: Parallelism, expert_load: str, expert_exchange: str
) -> Iterator[tuple[str, bool]]:
    """The same of a profile with tables: what was looked up for this model was measured, what was scaled was not."""
    stages, one = Stages(profile, model, parallelism, expert_load), np.ones(1, dtype=np.int64)
    attention = attention_parts(AttentionSetting(profile, model.hidden, parallelism.tensor, kernel), model)
    for group, part in zip(model.groups, attention, strict=True):
        yield group.attention.kind, part.measured
        for name, seconds in stages.layer(group, part.covers, one):
            yield name, seconds.measured
    yield HEAD, stages.head(one).measured
    if parallelism.attention_dp > 1 and expert_exchange == DEEPEP:
        yield "exchange of tokens", all(sent.measured for _, sent in exchanged(profile, model, parallelism, one))
    elif parallelism.attention_dp > 1:
        yield "exchange of tokens", all_reduce_among(parallelism.gpus, profile.gpu, profile.all_reduce).measured
    yield "host time", bool(profile.errors["iteration"])


def _told(parts: Mapping[str, bool]) -> str:
    estimated = [name for name, measured in parts.items() if not measured]
    if len(estimated) == len(parts):
        return ROOFLINE
    if not estimated:
        return MEASURED
    listed = " and ".join(filter(None, (", ".join(estimated[:-1]), estimated[-1])))
    return f"measured, but for {listed}: estimated"
