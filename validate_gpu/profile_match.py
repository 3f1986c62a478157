"""Whether a profile is of the device and the kernel of a live run: else a validation would compare two devices."""

from __future__ import annotations

import torch

from l4sim.cost.attention.torch_cpu import TORCH_CPU
from l4sim.cost.profile import Profile
from l4sim.errors import InputError
from validate_gpu.live.build import LiveOptions, attention_on
from validate_gpu.live.device import open_device
from validate_gpu.live.flashinfer_attention import KERNELS
from validate_gpu.measure.describe import known_gpu


def served_kernel(profile: Profile, options: LiveOptions) -> str:
    """The profile's kernel that the live engine runs.

    Raises:
        InputError: the profile is of another device, of a CPU with other threads, or does not have the kernel.
    """
    device = open_device(options.device)
    attention = attention_on(device, options.attention)
    _check_device(profile, device, options.threads)
    kernel = KERNELS.get(attention, TORCH_CPU)
    if kernel not in profile.kernels:
        raise InputError(
            f"profile {profile.name}: no kernel '{kernel}', which --attention {attention} runs; accepted is another "
            f"profile, or --kernel with one of {', '.join(profile.kernels)}"
        )
    return kernel


def _check_device(profile: Profile, device: torch.device, threads: int) -> None:
    known = "cpu" if device.type == "cpu" else known_gpu(device)
    if known is not None and profile.gpu.name != known:
        raise InputError(
            f"profile {profile.name} is of {profile.gpu.name}, and the device is {known}: accepted is a profile "
            f"measured on it (l4sim profile measure --device {device.type})"
        )
    if device.type == "cpu" and profile.gpu.sms != threads:
        raise InputError(
            f"profile {profile.name} was measured with {profile.gpu.sms} threads: accepted is --threads "
            f"{profile.gpu.sms}, not {threads}"
        )
