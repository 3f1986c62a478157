"""FlashInfer's kernels: the jumps of their planners, seen in time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from l4sim.cost.attention import FLASHINFER_KERNELS
from l4sim.cost.batch import Batch
from l4sim.cost.model import AttentionModel

Build = Callable[..., AttentionModel]
MakeBatch = Callable[..., Batch]


def jump(model: AttentionModel, batch: MakeBatch, requests: int) -> float:
    """Time of a skewed batch of so many requests over that of one request less."""
    less, more = (model.attention_s(batch([1024] * (count - 1) + [99328])) for count in (requests - 1, requests))
    return more / less


def test_tensor_cores_jump_at_33_requests(attention: Build, batch: MakeBatch) -> None:
    assert jump(attention("flashinfer-tensor"), batch, 33) > 1.8
    assert jump(attention("flashinfer-tensor"), batch, 34) == pytest.approx(1, abs=0.02)


def test_cuda_cores_jump_at_132_requests(attention: Build, batch: MakeBatch) -> None:
    assert jump(attention("flashinfer-cuda"), batch, 132) > 1.8
    assert jump(attention("flashinfer-cuda"), batch, 33) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("requests", [33, 132])
def test_the_balanced_kernel_does_not_jump(requests: int, attention: Build, batch: MakeBatch) -> None:
    assert jump(attention("flashinfer-batch"), batch, requests) == pytest.approx(1, abs=0.02)


def test_skew_hurts_tensor_cores_most(attention: Build, batch: MakeBatch) -> None:
    skewed = batch([512] * 62 + [49664] * 2)
    seconds = {kernel: attention(kernel).attention_s(skewed) for kernel in FLASHINFER_KERNELS}
    assert seconds["flashinfer-tensor"] > 4 * max(seconds["flashinfer-cuda"], seconds["flashinfer-batch"])


@pytest.mark.parametrize("kernel", FLASHINFER_KERNELS)
def test_prefill_is_a_launch_of_its_own(kernel: str, attention: Build, batch: MakeBatch) -> None:
    model = attention(kernel)
    decodes, prefills = batch([900, 70, 4000]), batch([], [(512, 100), (64, 0)])
    together = model.attention_s(batch([900, 70, 4000], [(512, 100), (64, 0)]))
    assert together == pytest.approx(model.attention_s(decodes) + model.attention_s(prefills))
