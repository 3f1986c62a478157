"""A kernel's descriptor: a new one is its coefficients and its time model, under a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from l4sim.batch import Batch
from l4sim.cost.attention import KERNELS, MODELS, build_attention, read_coefficients
from l4sim.cost.attention.kernel import BytesPerSecond, Kernel, Seconds, WholeNumber, units
from l4sim.cost.attention.shape import Shape
from l4sim.errors import InputError

LLAMA_8B = {"heads": 32, "kv_heads": 8, "head_dim": 128, "sms": 132}


@dataclass(frozen=True)
class Figures:
    launch_s: Seconds
    dram_bytes_per_s: BytesPerSecond
    launches: WholeNumber = 1


@dataclass(frozen=True)
class Streaming:
    """Nothing but launches and bytes."""

    shape: Shape
    c: Figures

    def attention_s(self, batch: Batch) -> float:
        size_bytes = batch.decode_context_sum * self.shape.kv_bytes_per_token
        return self.c.launches * self.c.launch_s + size_bytes / self.c.dram_bytes_per_s


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setitem(KERNELS, "streaming", Kernel("streaming", Figures, Streaming))  # type: ignore[arg-type]
    return {"launch_s": 1e-6, "dram_bytes_per_s": 1e12, "skew_alpha": 0.5}


@pytest.mark.parametrize("model", MODELS)
def test_a_new_kernel_has_every_model(model: str, streaming: dict[str, Any], batch: Callable[..., Batch]) -> None:
    built = build_attention("streaming", streaming, model=model, **LLAMA_8B)
    # Equal lengths, so that all models agree (``sum`` nearly, fitted to two batches): 2,000 tokens of 4,096 bytes.
    assert built.attention_s(batch([1000, 1000])) == pytest.approx(1e-6 + 2000 * 4096 / 1e12, rel=1e-3)


def test_its_types_say_what_it_accepts(streaming: dict[str, Any]) -> None:
    assert read_coefficients("streaming", streaming) == Figures(1e-6, 1e12, launches=1)
    with pytest.raises(InputError, match=r"dram_bytes_per_s is 0, accepted is a number above 0"):
        read_coefficients("streaming", streaming | {"dram_bytes_per_s": 0})
    with pytest.raises(InputError, match=r"streaming coefficients: launches is 1.5, accepted is a whole number >= 1"):
        read_coefficients("streaming", streaming | {"launches": 1.5})


def test_skew_needs_its_constant(streaming: dict[str, Any]) -> None:
    del streaming["skew_alpha"]
    build_attention("streaming", streaming, model="mean", **LLAMA_8B)
    with pytest.raises(InputError, match=r"streaming coefficients: skew_alpha is missing"):
        build_attention("streaming", streaming, model="skew", **LLAMA_8B)


def test_units_are_read_from_the_types() -> None:
    assert units(Figures) == {"launch_s": "s", "dram_bytes_per_s": "bytes/s", "launches": "1"}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=lambda kernel: kernel.name)
def test_names_of_coefficients_agree_with_their_units(kernel: Kernel[Any]) -> None:
    endings = {"bytes/s": "_bytes_per_s", "bytes": "_bytes", "FLOP/s": "_flops", "s": "_s", "waves": "_waves"}
    for name, unit in units(kernel.coefficients).items():
        assert name.endswith(endings.get(unit, "")), f"{name} in {unit}"
