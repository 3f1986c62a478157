"""Tables of all-reduces: in bytes rather than elements, without the collector's copies, impossible rows left out."""

from pathlib import Path

import pandas as pd
import pytest

from l4sim.calibration.points.all_reduces import read_all_reduces
from l4sim.cost.communication import AllReduceTable
from l4sim.errors import InputError
from l4sim.specs.gpu import GPUS

H200 = GPUS["h200-sxm"]
MIB = 1 << 20


def rows(regime: str, *milliseconds: float, version: str = "0.24.0") -> pd.DataFrame:
    """One row for each power of two from 1 MiB on, of two GPUs."""
    return pd.DataFrame(
        {
            "framework": "vLLM",
            "version": version,
            "device": "NVIDIA H200",
            "kernel_source": f"vLLM_custom_{regime}",
            "allreduce_dtype": "bfloat16",
            "num_gpus": 2,
            "message_size": [(MIB << power) // 2 for power in range(len(milliseconds))],
            "latency": milliseconds,
        }
    )


def read(tmp_path: Path, *tables: pd.DataFrame) -> dict[str, AllReduceTable]:
    pd.concat(tables).to_parquet(tmp_path / "custom_allreduce_perf.parquet")
    return {table.regime: table for table in read_all_reduces(tmp_path / "custom_allreduce_perf.parquet", H200)}


def test_a_table_says_what_it_is_of_and_counts_elements(tmp_path: Path) -> None:
    found = read(tmp_path, rows("graph", 0.01, 0.02, 0.04))["captured"]
    assert found.name == "all-reduce, 2 GPUs, captured, vLLM 0.24.0"
    assert (found.device, found.measured) == ("NVIDIA H200", True)
    assert (found.curve.sizes[0], found.curve.sizes[-1]) == (MIB, 4 * MIB)
    assert (found.curve.seconds[0], found.curve.seconds[-1]) == pytest.approx((1e-5, 4e-5))


def test_of_eager_messages_the_collectors_copy_and_the_hosts_launch_are_taken_off(tmp_path: Path) -> None:
    """The largest takes 8 us longer: its copy. The next loses half of that; the smallest took the host 25 us to launch,
    and the GPU what a captured one takes, with a copy of a quarter of the bytes.
    """
    found = read(tmp_path, rows("graph", 0.01, 0.02, 0.04), rows("eager", 0.025, 0.026, 0.048))
    assert found["eager"].curve.at([MIB, 2 * MIB, 4 * MIB]).tolist() == pytest.approx([12e-6, 22e-6, 40e-6], rel=0.03)
    assert found["captured"].curve.at(MIB) == pytest.approx(10e-6)


def test_eager_messages_alone_are_taken_as_they_were_timed(tmp_path: Path) -> None:
    found = read(tmp_path, rows("eager", 0.025, 0.026, 0.048))
    assert found["eager"].curve.at([MIB, 4 * MIB]).tolist() == pytest.approx([25e-6, 48e-6])


def test_messages_that_beat_the_link_are_left_out_and_counted(tmp_path: Path) -> None:
    """2 MiB cannot cross 450 GB/s in 3 us."""
    found = read(tmp_path, rows("graph", 0.01, 0.003, 0.04, 0.08))["captured"]
    assert found.errors["flagged"] == 1
    assert float(found.curve.at(2 * MIB)) == pytest.approx(2e-5, rel=0.05)


def test_a_table_in_another_unit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"messages among 2 GPUs: 0 of 3 are slower than h200-sxm's link of 450 GB/s"):
        read(tmp_path, rows("graph", 10e-6, 20e-6, 40e-6))


def test_rows_of_another_engine_are_not_taken_for_vllms(tmp_path: Path) -> None:
    other = rows("graph", 0.01, 0.02, 0.04).assign(kernel_source="SGLang_CustomAllReduce_graph")
    with pytest.raises(InputError, match="no rows with kernel_source vLLM_custom_graph or vLLM_custom_eager"):
        read(tmp_path, other)


def test_a_table_without_a_version_has_its_file_names(tmp_path: Path) -> None:
    path = tmp_path / "aic_h200_sxm_vllm0.24_allreduce.csv.gz"
    rows("graph", 0.01, 0.02, 0.04).drop(columns=["framework", "version"]).to_csv(path, index=False)
    assert [table.engine for table in read_all_reduces(path, H200)] == ["vLLM 0.24"]


def test_the_custom_all_reduce_ends_below_8_mib(measurements: Path) -> None:
    """There time doubles: at 4 Mi elements, not at 8 Mi. And NVLink's 450 GB/s bound the ring: 1 GiB among 2 GPUs
    cannot take less than 2.4 ms.
    """
    tables = read_all_reduces(measurements / "aic_h200_sxm_vllm0.24_allreduce.csv.gz", H200)
    two = next(table.curve for table in tables if (table.gpus, table.regime) == (2, "captured"))
    below, at = two.at([4 * 2**20, 8 * 2**20])
    assert at > 1.9 * below
    assert 300e9 < 2**30 / float(two.at(2**30)) < 450e9
    assert all(len(table.curve.sizes) <= 14 for table in tables)
