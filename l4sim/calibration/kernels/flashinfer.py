"""The coefficients of FlashInfer's decode kernels: fitted to measured batches, or assumed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from l4sim.calibration.fits.skew import skew_alpha
from l4sim.calibration.kernels.batches import BatchFit, relative_least_squares
from l4sim.calibration.kernels.calibration import Calibration, Coefficients, as_json, reference_shape
from l4sim.calibration.points.batches import PREFILL_KERNEL, BatchPoint, MeasuredBatches
from l4sim.cost.attention.flashinfer import BATCH, CUDA_CORE, KERNELS, TENSOR_CORE, FlashInferCoefficients
from l4sim.cost.attention.kernel import Kernel
from l4sim.specs.gpu import GPU

# What only decodes on CUDA cores show.
_CUDA_CORE_ONLY = ("cuda_core_flops", "cuda_core_shared")


def assumed(gpu: GPU) -> FlashInferCoefficients:
    """Figures for a GPU on which nothing was measured.

    Fractions of the datasheet's peaks that FlashAttention-3, or FlashInfer itself, was measured to reach on H200.
    """
    peak = gpu.memory_bytes_per_s
    return FlashInferCoefficients(
        launch_s=5e-6,
        block_start_s=2e-6,
        block_bytes_per_s=0.8 * peak / gpu.sms,
        cuda_core_flops=105e9 * gpu.sms,
        cuda_core_shared=0.3,
        dram_bytes_per_s=0.92 * peak,
        ramp_bytes_per_s=0.78 * peak,
        exposed_start=0.7,
        sharpness=4.0,
        merge_s=2e-6,
        merge_row_s=2.5e-9,
        prefill_launch_s=4e-6,
        prefill_start_s=4e-6,
        prefill_flops=0.65 * gpu.bf16_flops,
        prefill_alone=0.75,
        prefill_row_s=2.5e-9,
    )


def _solve(
    kernel: Kernel[FlashInferCoefficients], without: tuple[str, ...], seen: Sequence[BatchPoint], gpu: GPU
) -> FlashInferCoefficients:
    """Fit all coefficients but those ``without`` effect on the kernel."""
    peak = gpu.memory_bytes_per_s
    bounds = {
        "launch_s": (1e-6, 2e-5),
        "block_start_s": (2e-7, 1e-5),
        "block_bytes_per_s": (0.05 * peak / gpu.sms, 4 * peak / gpu.sms),
        "cuda_core_flops": (1e-3 * gpu.bf16_flops, 0.1 * gpu.bf16_flops),
        "cuda_core_shared": (0.0, 1.0),
        "dram_bytes_per_s": (0.4 * peak, peak),
        "ramp_bytes_per_s": (0.2 * peak, peak),
        "exposed_start": (0.0, 1.0),
        "sharpness": (1.0, 12.0),
        "merge_s": (1e-7, 1e-5),
        "merge_row_s": (1e-11, 1e-8),
        "prefill_launch_s": (1e-6, 2e-5),
        "prefill_start_s": (2e-7, 2e-5),
        "prefill_flops": (0.05 * gpu.bf16_flops, gpu.bf16_flops),
        "prefill_alone": (0.5, 1.0),
        "prefill_row_s": (1e-11, 1e-8),
    }
    shown = {name: bound for name, bound in bounds.items() if name not in without}
    return relative_least_squares(kernel, assumed(gpu), shown, seen)


def _assume(kernel: Kernel[FlashInferCoefficients], gpu: GPU) -> Coefficients:
    c = assumed(gpu)
    return as_json(c, skew_alpha(kernel.build(reference_shape(gpu), c)))


def _calibration(
    name: str, *, without: tuple[str, ...] = (), prefill_kernel: str = PREFILL_KERNEL, captured: bool = True
) -> Calibration:
    kernel = next(kernel for kernel in KERNELS if kernel.name == name)
    fit = BatchFit(kernel, partial(_solve, kernel, without), prefill_kernel, captured)
    return Calibration(fits={MeasuredBatches: fit}, assume=partial(_assume, kernel))


CALIBRATIONS = {
    CUDA_CORE: _calibration(CUDA_CORE),
    TENSOR_CORE: _calibration(TENSOR_CORE, without=_CUDA_CORE_ONLY),
    BATCH: _calibration(BATCH, without=_CUDA_CORE_ONLY, prefill_kernel=BATCH, captured=False),
}
