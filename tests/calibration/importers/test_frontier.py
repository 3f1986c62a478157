"""Vidur's and Frontier's attention CSV: one point for each launch, and a profile that says what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from l4sim.batch import Prefill
from l4sim.calibration.importers.frontier import import_frontier, read_frontier
from l4sim.calibration.profile_json import write_profile
from l4sim.cost.basis import basis_of
from l4sim.cost.profile import load_profile
from l4sim.errors import InputError
from l4sim.specs.gpu import GPUS
from l4sim.specs.model import load_model

VIDUR: dict[str, Any] = {
    "time_stats.attn_prefill.median": 0.013,
    "time_stats.attn_decode.median": 0.25,
    "n_embd": 4096,
    "n_q_head": 32,
    "n_kv_head": 32,
    "num_tensor_parallel_workers": 2,
    "batch_size": 3,
    "prefill_chunk_size": 0,
    "kv_cache_size": 1023,
    "is_prefill": False,
    "attention_backend": "AttentionBackend.FLASHINFER",
}
FRONTIER = VIDUR | {
    "attention_backend": "FLASHINFER",
    "is_true_mixed_batch": True,
    "prefill_seq_lens": '"[64, 32]"',
    "prefill_kv_cache_sizes": '"[0, 16]"',
    "decode_kv_cache_sizes": '"[96, 8]"',
}


def write(folder: Path, **row: Any) -> Path:
    path = folder / "attention.csv"
    path.write_text(",".join(row) + "\n" + ",".join(str(value) for value in row.values()) + "\n")
    return path


def test_a_decode_row_is_a_uniform_batch_of_one_rank(tmp_path: Path) -> None:
    [point] = read_frontier(write(tmp_path, **VIDUR), sms=108)
    assert (point.shape.heads, point.shape.kv_heads, point.shape.head_dim, point.shape.sms) == (16, 16, 128, 108)
    assert point.batch.decode_context_tokens.tolist() == [1024] * 3
    assert point.seconds == pytest.approx(0.25e-3)
    assert (point.kernel, point.pattern) == ("flashinfer-cuda", "uniform")


def test_a_prefill_row_is_a_chunk_on_what_is_cached(tmp_path: Path) -> None:
    row = VIDUR | {"is_prefill": True, "prefill_chunk_size": 512, "batch_size": 1}
    [point] = read_frontier(write(tmp_path, **row), sms=108)
    assert point.batch.prefills == (Prefill(512, 1023),)
    assert point.seconds == pytest.approx(0.013e-3)


def test_a_mixed_row_is_two_launches(tmp_path: Path) -> None:
    decode, prompt = read_frontier(write(tmp_path, **FRONTIER), sms=132)
    assert decode.batch.decode_context_tokens.tolist() == [97, 9]
    assert (decode.pattern, decode.seconds) == ("mixed", pytest.approx(0.25e-3))
    assert prompt.batch.prefills == (Prefill(64, 0), Prefill(32, 16))
    assert prompt.kernel == "flashinfer-prefill"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attention_backend": "FLASH_ATTENTION"},
            "line 2: attention_backend is FLASH_ATTENTION, accepted is FLASHINFER",
        ),
        ({"batch_size": 1.5}, r"line 2: batch_size is '1\.5', accepted is a whole number >= 1"),
        ({"time_stats.attn_decode.median": 0}, r"line 2: time_stats\.attn_decode\.median is '0'"),
        ({"is_true_mixed_batch": True} | {"prefill_seq_lens": "64"}, "prefill_seq_lens is '64', accepted is a list"),
        ({"prefill_kv_cache_sizes": '"[0]"'}, "line 2: 2 prefill_seq_lens for 1 prefill_kv_cache_sizes"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    base = FRONTIER if any(name in FRONTIER and name not in VIDUR for name in changes) else VIDUR
    with pytest.raises(InputError, match=message):
        read_frontier(write(tmp_path, **(base | changes)), sms=132)


@pytest.mark.slow
def test_measured_decodes_are_met_and_the_rest_is_said_to_be_a_roofline(measurements: Path, tmp_path: Path) -> None:
    path = tmp_path / "attention.csv"
    # Every sixteenth launch: a fit of all of them takes as many times as long, and is no better.
    pd.read_csv(measurements / "frontier_a800_llama2-7b_flashinfer_attention.csv.gz")[::16].to_csv(path, index=False)
    write_profile(import_frontier(path, GPUS["a800"]), tmp_path)
    profile = load_profile(str(tmp_path))
    assert profile.kernels["flashinfer-cuda"].errors["uniform"]["mape_pct"] < 6
    assert profile.basis == "attention measured, the rest roofline"
    told = [basis_of(profile, load_model("llama-3.1-8b"), kernel) for kernel in ("flashinfer-cuda", "fa2")]
    assert told == [
        "measured, but for matrix products, element-wise kernels and host time: estimated",
        "roofline, not measured",
    ]
