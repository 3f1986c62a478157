"""GPUs: the table holds datasheet figures of the right order, and unknown names are refused."""

import pytest

from l4sim.errors import InputError
from l4sim.specs.gpu import GPUS, load_gpu


def test_the_bundled_gpus() -> None:
    assert set(GPUS) == {
        "h200-sxm",
        "h100-sxm",
        "h20-141gb",
        "l40-48gb",
        "a100-80gb-sxm",
        "rtx-pro-6000",
        "rtx-4090",
        "a800",
        "h800",
        "b200-sxm",
        "b300-sxm",
        "gb200",
        "gb300",
        "l40s",
    }


def test_memory_is_what_the_driver_reports_not_what_is_marketed() -> None:
    marketed_bytes = {"h200-sxm": 141e9, "h100-sxm": 80 * 2**30, "l40-48gb": 48 * 2**30, "a100-80gb-sxm": 80 * 2**30}
    for name, size in marketed_bytes.items():
        assert 0.9 * size < GPUS[name].memory_bytes < 1.07 * size
    assert GPUS["h100-sxm"].memory_bytes < 80 * 2**30


def test_the_machine_balance_of_hopper() -> None:
    """989 TFLOP/s over 4.8 TB/s: about 206 operations per byte; H20 has a seventh of it."""
    h200, h20 = GPUS["h200-sxm"], GPUS["h20-141gb"]
    assert h200.bf16_flops / h200.memory_bytes_per_s == pytest.approx(206, abs=1)
    assert h20.bf16_flops / h20.memory_bytes_per_s == pytest.approx(31, abs=1)


def test_an_unknown_gpu_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no GPU 'b100'.*h200-sxm"):
        load_gpu("b100")


def test_other_makers_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"no GPU 'MI355X', AMD's are not modelled: accepted are h200-sxm"):
        load_gpu("MI355X")
