"""What 'measured' covers: everything that a run's iterations use, or the rest is named."""

import pytest

from l4sim.cost.basis import basis_of
from l4sim.cost.communication import all_reduce_among
from l4sim.cost.profile import load_profile
from l4sim.specs.model import load_model

MEASURED_MODEL, OTHER = load_model("llama-3.1-8b"), load_model("llama-3.1-70b")


@pytest.mark.parametrize(
    ("profile", "kernel", "told"),
    [
        ("h200-flashinfer", "flashinfer-tensor", "measured"),
        ("h200-sxm", "fa3", "measured, but for element-wise kernels and host time: estimated"),
        ("h200-sxm", "fa2", "measured, but for fa2, element-wise kernels and host time: estimated"),
        ("l40-48gb", "fa2", "roofline, not measured"),
    ],
)
def test_what_was_not_measured_is_named(profile: str, kernel: str, told: str) -> None:
    assert basis_of(load_profile(profile), MEASURED_MODEL, kernel) == told


def test_the_tensor_parallel_part_is_told_with_its_source() -> None:
    cards, nvlink = load_profile("l40-48gb"), load_profile("h200-flashinfer")
    told = [
        basis_of(profile, OTHER, profile.default_kernel, 4, all_reduce_among(4, profile.gpu, profile.all_reduce))
        for profile in (cards, nvlink)
    ]
    assert told == [
        "roofline, not measured; all-reduce among 4 estimated as NVIDIA L40S in vLLM 0.14.0",
        "measured; all-reduce among 4 measured in vLLM 0.31.0",
    ]
