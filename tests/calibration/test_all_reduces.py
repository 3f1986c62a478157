"""Bundled all-reduces: what a profile takes that has none of its own, or of other versions."""

from pathlib import Path

import pytest

from l4sim.calibration.all_reduces import all_reduces_of, bundled_all_reduces
from l4sim.calibration.points.all_reduces import read_all_reduces
from l4sim.cost.communication import AllReduceTable
from l4sim.cost.curve import OverBytes
from l4sim.cost.profile import load_profile
from l4sim.specs.gpu import GPUS

OWN = AllReduceTable(2, "captured", "vLLM 0.24", "mine", True, OverBytes((1.0, 2.0), (1.0, 2.0)), {})


def test_bundled_tables_fill_what_ones_own_leave_open() -> None:
    section = all_reduces_of(GPUS["rtx-pro-6000"], [OWN], "mine")
    two = [table for table in section["tables"] if (table["gpus"], table["regime"]) == (2, "captured")]
    assert [(table["engine"], table["device"][:4]) for table in two] == [("vLLM 0.24", "mine"), ("vLLM 0.19.0", "NVID")]
    assert section["source"].startswith("mine; ai-dynamo/aisimulate")


@pytest.mark.parametrize("name", ["h200-flashinfer", "rtx-pro-6000", "l40-48gb", "h20-141gb", "a100-80gb-sxm"])
def test_bundled_profiles_have_what_their_gpu_takes(name: str) -> None:
    profile = load_profile(name)
    assert profile.all_reduce == bundled_all_reduces(profile.gpu).tables


@pytest.mark.parametrize(
    ("name", "system", "version"),
    [("h100-sxm", "h100_sxm", "0.19.0"), ("rtx-pro-6000", "rtx_pro_6000_server", "0.24.0")],
)
def test_bundled_tables_are_what_the_measurements_make(
    measurements: Path, name: str, system: str, version: str
) -> None:
    source = measurements / "aisimulate" / system / f"vllm-{version}" / "custom_allreduce_perf.parquet"
    again = read_all_reduces(source, GPUS[name])
    bundled = [table for table in bundled_all_reduces(GPUS[name]).tables if table.engine == f"vLLM {version}"]
    assert [table.name for table in again] == [table.name for table in bundled]
    for table, kept in zip(again, bundled, strict=True):
        assert table.errors == kept.errors
        assert table.curve.seconds == pytest.approx(kept.curve.seconds, rel=1e-5)
