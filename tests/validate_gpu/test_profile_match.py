"""A profile predicts the device that it was measured on, by the kernel that runs there."""

import dataclasses

import pytest

from l4sim.cost.profile import load_profile
from l4sim.errors import InputError
from validate_gpu.live.build import LiveOptions
from validate_gpu.profile_match import served_kernel

CPU = LiveOptions(device="cpu")


@pytest.mark.slow
def test_a_cpus_profile_predicts_pytorchs_attention(law_profile):
    assert served_kernel(load_profile(str(law_profile)), CPU) == "torch-cpu"


def test_another_devices_profile_is_refused():
    with pytest.raises(InputError, match="profile h200-sxm is of h200-sxm, and the device is cpu: accepted is a prof"):
        served_kernel(load_profile("h200-sxm"), CPU)


@pytest.mark.slow
def test_other_threads_are_refused(law_profile):
    with pytest.raises(InputError, match="profile law was measured with 1 threads: accepted is --threads 1, not 2"):
        served_kernel(load_profile(str(law_profile)), dataclasses.replace(CPU, threads=2))


def test_a_kernel_that_the_profile_lacks_is_named(law_profile):
    profile = dataclasses.replace(load_profile(str(law_profile)), kernels={"fa3": None})
    with pytest.raises(InputError, match=r"no kernel 'torch-cpu', which --attention torch runs; accepted is .*fa3"):
        served_kernel(profile, CPU)
