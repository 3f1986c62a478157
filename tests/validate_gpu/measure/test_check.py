"""The ground check: findings, not crashes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from l4sim.kernels.flashinfer import CUDA_CORE_BLOCKS_PER_SM
from l4sim.specs.model import load_model
from validate_gpu.measure.bench import Bench
from validate_gpu.measure.check import blocks_per_sm, check_ground, prebuilt
from validate_gpu.measure.plan import Target
from validate_gpu.measure.points import AttentionPoint, Point, Sample
from validate_gpu.measure.work import CheckFailedError

CPU = torch.device("cpu")
TARGET = Target(
    model=load_model("llama-3.1-8b"),
    decode_kernels=(("flashinfer-tensor", "graph"), ("flashinfer-batch", "eager")),
    prefill_kernels=("flashinfer-prefill",),
    mixed_kernel="flashinfer-tensor",
    kv_tokens=1 << 20,
    item_bytes=2,
    gpus=1,
)


class OneWrong:
    """A bench whose BatchAttention computes something else."""

    def measure(self, point: Point) -> Sample:
        if isinstance(point, AttentionPoint) and point.kernel == "flashinfer-batch":
            raise CheckFailedError("the result differs from float32 by 3")
        return Sample(2.5e-5, 1e-6, 20, "graph", 0.004)


def no_bench() -> Bench:
    raise RuntimeError("CUDA driver version is insufficient")


def test_every_operator_is_looked_at_and_what_is_wrong_stands_out() -> None:
    findings = {finding.what: finding for finding in check_ground(CPU, TARGET, OneWrong, 4.8e12)}
    assert list(findings) == [
        "PyTorch",
        "flashinfer-tensor",
        "flashinfer-batch",
        "flashinfer-prefill prompts",
        "linear",
        "kv_copy",
    ]
    assert [what for what, finding in findings.items() if not finding.right] == ["flashinfer-batch"]
    assert findings["flashinfer-batch"].found == "CheckFailedError: the result differs from float32 by 3"
    assert findings["linear"].found.startswith(
        "25.0 us (quartiles 1.0 us apart, 20 repeats timed by graph), 0.004 from"
    )


def test_a_device_that_cannot_be_set_up_is_a_finding() -> None:
    last = list(check_ground(CPU, TARGET, no_bench, 4.8e12))[-1]
    assert (last.what, last.right) == ("setting up", False)
    assert last.found == "RuntimeError: CUDA driver version is insufficient"


@pytest.mark.slow
@pytest.mark.parametrize(("group", "expected"), CUDA_CORE_BLOCKS_PER_SM.items())
def test_blocks_per_sm_are_read_off_the_padded_grid(group: int, expected: int) -> None:
    planned: dict[str, Any] = {}

    class Wrapper:
        def __init__(self, workspace: torch.Tensor, layout: str, **options: Any) -> None:
            assert (layout, options["use_cuda_graph"], options["use_tensor_cores"]) == ("NHD", True, False)
            assert len(options["paged_kv_indptr_buffer"]) == 2

        def plan(
            self, indptr: torch.Tensor, indices: torch.Tensor, last: torch.Tensor, *sizes: int, **types: Any
        ) -> None:
            planned.update(indptr=indptr.tolist(), pages=len(indices), last=last.tolist(), sizes=sizes, types=types)
            # As FlashInfer's planner has it: all resident blocks over the KV heads, rounded down.
            self._plan_info = [expected * 132 // sizes[1], 0, 0]

    module: Any = SimpleNamespace(BatchDecodeWithPagedKVCacheWrapper=Wrapper)
    assert blocks_per_sm(module, group, 128, CPU, sms=132) == expected
    assert planned["sizes"] == (8 * group, 8, 128, 16)
    assert (planned["indptr"], planned["pages"], planned["last"]) == ([0, 64], 64, [16])
    assert set(planned["types"].values()) == {torch.bfloat16}


def test_kernels_are_asked_for_as_they_are_prebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    bf16, i32 = torch.bfloat16, torch.int32
    asked = []

    def generator(there: bool) -> Any:
        def generate(*arguments: Any) -> Any:
            asked.append(arguments)
            return SimpleNamespace(is_aot=there)

        return generate

    modules = {
        "flashinfer.jit": SimpleNamespace(
            gen_batch_decode_module=generator(True), gen_batch_prefill_module=generator(False)
        ),
        "flashinfer.jit.attention": SimpleNamespace(gen_batch_attention_module=generator(True)),
    }
    monkeypatch.setattr("importlib.import_module", modules.__getitem__)
    assert [there for _, there in prebuilt(load_model("llama-3.1-8b"))] == [True, False, True]
    assert asked == [
        (bf16, bf16, bf16, i32, 128, 128, 0, False, False),
        ("fa2", bf16, bf16, bf16, i32, 128, 128, 0, False, False, False),
        (bf16, bf16, bf16, i32, 128, 128, 0, False, False),
    ]
