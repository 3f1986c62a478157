"""``l4sim profile check``: whether all that a measurement needs is there and right, before GPU time is spent."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch

from l4sim.kernels.flashinfer import CUDA_CORE_BLOCKS_PER_SM
from l4sim.specs.model import Model, uniform_layers
from validate_gpu.live.device import load_flashinfer
from validate_gpu.live.flashinfer_attention import CUDA_CORE_GROUPS, Workspace
from validate_gpu.live.inputs import indptr
from validate_gpu.measure.attention_work import PAGE_TOKENS
from validate_gpu.measure.bench import Bench
from validate_gpu.measure.patterns import spread
from validate_gpu.measure.plan import Target
from validate_gpu.measure.points import AttentionPoint, KvCopyPoint, ProductPoint

_KV_HEADS = 8
_COPY_BYTES = 1 << 30
_COPY_REPEATS = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    what: str
    found: str
    right: bool


def check_ground(
    device: torch.device, target: Target, open_bench: Callable[[], Bench], peak_bytes_per_s: float
) -> Iterable[Finding]:
    """Check one thing after the other, cheapest first; a failure is a finding, and the checks go on."""
    yield Finding("PyTorch", f"{torch.__version__}, CUDA {torch.version.cuda}, {torch.get_num_threads()} threads", True)
    if device.type == "cuda":
        yield from _gpu(device, target.model)
    try:
        bench = open_bench()
    except Exception as error:
        yield Finding("setting up", f"{type(error).__name__}: {error}", False)
        return
    for point in _points(target):
        what = getattr(point, "kernel", point.table) + (" prompts" if getattr(point, "chunks", ()) else "")
        try:
            sample = bench.measure(point)
        except Exception as error:
            yield Finding(what, f"{type(error).__name__}: {error}", False)
        else:
            yield Finding(
                what,
                f"{sample.median_s * 1e6:.1f} us (quartiles {sample.spread_s * 1e6:.1f} us apart, {sample.repeats} "
                f"repeats timed by {sample.timed}), {sample.reference_error:.2g} from float32",
                True,
            )
    if device.type == "cuda":
        yield _copy_bandwidth(device, peak_bytes_per_s)


def _gpu(device: torch.device, model: Model) -> Iterable[Finding]:
    properties = torch.cuda.get_device_properties(device)
    capability = f"{properties.major}.{properties.minor}"
    yield Finding("GPU", f"{properties.name}, {properties.multi_processor_count} SMs, capability {capability}", True)
    try:
        flashinfer = load_flashinfer()
        yield Finding("FlashInfer", flashinfer.__version__, True)
        for kernel, there in prebuilt(model):
            yield Finding(f"prebuilt {kernel}", "found" if there else "missing: compiled at its first use", there)
    except Exception as error:
        yield Finding("FlashInfer", f"{type(error).__name__}: {error}", False)
        return
    head_dim = uniform_layers(model).attention.head_dim
    for group in CUDA_CORE_GROUPS if head_dim == 128 else ():
        expected = CUDA_CORE_BLOCKS_PER_SM.get(group)
        try:
            found = blocks_per_sm(flashinfer, group, head_dim, device, properties.multi_processor_count)
        except Exception as error:
            yield Finding(f"blocks per SM, group {group}", f"{type(error).__name__}: {error}", False)
        else:
            expectation = "not known so far" if expected is None else f"expected {expected}"
            yield Finding(f"blocks per SM, group {group}", f"{found}, {expectation}", expected in (None, found))


def prebuilt(model: Model) -> Iterable[tuple[str, bool]]:
    """FlashInfer's kernels for a model's head size in bf16, and whether each is there compiled."""
    jit = importlib.import_module("flashinfer.jit")
    attention = importlib.import_module("flashinfer.jit.attention")
    bf16, dim = torch.bfloat16, uniform_layers(model).attention.head_dim
    types = (bf16, bf16, bf16, torch.int32, dim, dim, 0)
    yield "decode on CUDA cores", jit.gen_batch_decode_module(*types, False, False).is_aot
    yield "prefill, and decode on tensor cores", jit.gen_batch_prefill_module("fa2", *types, False, False, False).is_aot
    yield "BatchAttention", attention.gen_batch_attention_module(*types, False, False).is_aot


def blocks_per_sm(flashinfer: ModuleType, group: int, head_dim: int, device: torch.device, sms: int) -> int:
    """Resident blocks per SM of the CUDA-core decode kernel, from the grid that a captured plan is padded to."""
    wrapper: Any = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        Workspace(device).buffer,
        "NHD",
        use_cuda_graph=True,
        use_tensor_cores=False,
        paged_kv_indptr_buffer=torch.zeros(2, dtype=torch.int32, device=device),
        paged_kv_indices_buffer=torch.zeros(64, dtype=torch.int32, device=device),
        paged_kv_last_page_len_buffer=torch.ones(1, dtype=torch.int32, device=device),
    )
    wrapper.plan(
        torch.from_numpy(indptr([64])),
        torch.arange(64, dtype=torch.int32),
        torch.full((1,), PAGE_TOKENS, dtype=torch.int32),
        group * _KV_HEADS,
        _KV_HEADS,
        head_dim,
        PAGE_TOKENS,
        q_data_type=torch.bfloat16,
        kv_data_type=torch.bfloat16,
    )
    # The plan's first number is the padded batch: the grid over the KV heads.
    return int(np.ceil(int(wrapper._plan_info[0]) * _KV_HEADS / sms))


def _points(target: Target) -> Iterable[AttentionPoint | ProductPoint | KvCopyPoint]:
    model = target.model
    requests, tokens = (32, 131072) if target.gpus else (8, 4096)
    contexts = spread("one-long", requests, tokens, model.max_model_len)
    if contexts is not None:
        for kernel, planned in target.decode_kernels:
            yield AttentionPoint(model, kernel, planned, "one-long", contexts)
    for kernel in target.prefill_kernels:
        yield AttentionPoint(model, kernel, "eager", "prompts", (), ((256, 64),))
    yield ProductPoint(64, model.hidden, uniform_layers(model).mlp.intermediate)
    yield KvCopyPoint(model, 1024, "same-device")


def _copy_bandwidth(device: torch.device, peak_bytes_per_s: float) -> Finding:
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8, device=device)
    destination = torch.empty_like(source)
    destination.copy_(source)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    for _ in range(_COPY_REPEATS):
        destination.copy_(source)
    end.record()
    torch.cuda.synchronize(device)
    rate = 2 * _COPY_BYTES * _COPY_REPEATS / (start.elapsed_time(end) * 1e-3)
    fraction = rate / peak_bytes_per_s
    # A GPU that copies at less than two thirds of its datasheet's rate is shared, throttled or another one.
    return Finding("copy bandwidth", f"{rate / 1e12:.2f} TB/s, {fraction:.0%} of the datasheet's", fraction > 2 / 3)
