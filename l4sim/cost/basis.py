"""What of a run's seconds was measured, and what was not: said wherever its figures are printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from l4sim.cost.build import measured_layer
from l4sim.cost.communication import AllReduce
from l4sim.cost.profile import Profile
from l4sim.specs.model import Model

MEASURED = "measured"
ROOFLINE = "roofline, not measured"


def basis_of(
    profile: Profile, model: Model, kernel: str, tensor_parallel: int = 1, all_reduce: AllReduce | None = None
) -> str:
    """What the seconds of a model's iterations on a profile rest on, in a few words.

    ``measured`` alone covers all that the iterations use; else what it does not cover is named. The ``all_reduce`` of
    tensor parallelism is told apart, with its source.
    """
    if profile.iterations:
        # Whole ones were, with all that was in them.
        return "measured"
    told = _told(dict(_parts(profile, model, kernel, tensor_parallel)))
    return told if all_reduce is None else f"{told}; {all_reduce_basis(all_reduce, tensor_parallel)}"


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


def _told(parts: Mapping[str, bool]) -> str:
    estimated = [name for name, measured in parts.items() if not measured]
    if len(estimated) == len(parts):
        return ROOFLINE
    if not estimated:
        return MEASURED
    listed = " and ".join(filter(None, (", ".join(estimated[:-1]), estimated[-1])))
    return f"measured, but for {listed}: estimated"
