"""aiconfigurator's tables: found by either name, read from any format, bf16 rows alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from l4sim.calibration.importers.aiconfigurator import (
    describe_tables,
    find_table,
    is_aiconfigurator,
    read_decode_points,
    read_gemm_points,
)
from l4sim.errors import InputError
from l4sim.specs.gpu import GPUS

H200 = GPUS["h200-sxm"]
GEMM = pd.DataFrame(
    {
        "framework": "VLLM",
        "version": "0.19.0",
        "gemm_dtype": ["bfloat16", "fp8", "bfloat16"],
        "m": [1, 1, 128],
        "n": [4096] * 3,
        "k": [4096] * 3,
        "latency": [0.01, 0.006, 0.02],
    }
)


@pytest.mark.parametrize("name", ["gemm_perf.txt", "gemm_perf.parquet", "aic_h200_sxm_vllm0.19_gemm_bf16.csv.gz"])
def test_a_table_is_found_and_read_under_either_name_and_in_any_format(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        GEMM.to_parquet(tmp_path / name)
    else:
        GEMM.to_csv(tmp_path / name, index=False)
    assert is_aiconfigurator(tmp_path)
    points = read_gemm_points(find_table(H200, tmp_path, "gemm_bf16"))
    assert points.m.tolist() == [1, 128], "rows of another type are left out"
    assert points.seconds == pytest.approx([1e-5, 2e-5])
    assert describe_tables(H200, tmp_path) == "ai-dynamo/aiconfigurator, VLLM 0.19.0"


def test_quantised_caches_and_windows_are_left_out(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {
            "attn_dtype": "bfloat16",
            "kv_cache_dtype": ["bfloat16", "fp8", "bfloat16"],
            "window_size": [0, 0, 1024],
            "batch_size": [1, 2, 3],
            "num_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "step": 1023,
            "latency": 0.02,
        }
    )
    rows.to_parquet(tmp_path / "generation_attention_perf.parquet")
    points = read_decode_points(find_table(H200, tmp_path, "decode_attention"))
    assert points.batch.tolist() == [1]
    assert points.tokens.tolist() == [1024]


def test_no_table_and_several_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected is one table aic_h200_sxm_\*_gemm_bf16 or gemm_perf .* found none"):
        find_table(H200, tmp_path, "gemm_bf16")
    for ending in ("txt", "csv"):
        GEMM.to_csv(tmp_path / f"gemm_perf.{ending}", index=False)
    with pytest.raises(InputError, match=r"found gemm_perf\.csv, gemm_perf\.txt"):
        find_table(H200, tmp_path, "gemm_bf16")


def test_a_damaged_parquet_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "gemm_perf.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"gemm_perf\.parquet: cannot be read as Parquet"):
        read_gemm_points(tmp_path / "gemm_perf.parquet")
