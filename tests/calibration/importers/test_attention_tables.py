"""Reading measurements: what a column means, and what a wrong value says."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from l4sim.calibration.importers.aiconfigurator import read_decode_points, read_prefill_points
from l4sim.calibration.importers.llmservingsim import read_mixed_points, read_skew_points
from l4sim.errors import InputError

UNIFORM = "device,kernel_source,batch_size,num_heads,num_key_value_heads,head_dim,{},latency\nH200,fa3,{}\n"
SKEW = "regime,n,nb,ratio,skew,pc,kp,kvs,kv_big,kv_mean,t_mean_us,t_max_us,t_skew_us,alpha\n"


def test_decode_counts_the_new_token_and_milliseconds(tmp_path: Path) -> None:
    path = tmp_path / "decode.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write(UNIFORM.format("step", "4,32,8,128,1023,0.02"))
    points = read_decode_points(path)
    assert (points.batch[0], points.heads[0], points.kv_heads[0], points.tokens[0]) == (4, 32, 8, 1024)
    assert points.seconds[0] == pytest.approx(20e-6)


def test_prefill_is_the_whole_prompt(tmp_path: Path) -> None:
    path = tmp_path / "prefill.csv"
    path.write_text(UNIFORM.format("isl", "4,32,8,128,1024,0.5"))
    points = read_prefill_points(path)
    assert points.tokens.tolist() == [1024]
    assert len(points.where(points.seconds > 1.0)) == 0


def test_mixed_batches_may_lack_decodes_or_prefill(tmp_path: Path) -> None:
    path = tmp_path / "attention.csv"
    path.write_text("prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,2,16,8.5\n64,512,0,0,9.5\n")
    points = read_mixed_points(path)
    decode, prefill = points.batch(0), points.batch(1)
    assert (decode.decode_context_tokens.tolist(), decode.decode_context_sum, decode.prefills) == ([17, 17], 34, ())
    assert len(prefill.decode_context_tokens) == 0
    assert (prefill.prefills[0].chunk_tokens, prefill.prefills[0].cached_tokens) == (64, 512)
    assert points.seconds == pytest.approx([8.5e-6, 9.5e-6])


def test_skewed_times_are_sums_of_three_launches(tmp_path: Path) -> None:
    path = tmp_path / "skew.csv"
    path.write_text(SKEW + "pure,4,1,0.25,4.0,0,0,128,512,224,30,60,33,\n")
    points = read_skew_points(path)
    assert (points.mean_s[0], points.longest_s[0], points.seconds[0]) == pytest.approx((1e-5, 2e-5, 1.1e-5))
    assert points.batch(0).decode_context_tokens.tolist() == [129, 129, 129, 513]
    assert points.mean_batch(0).decode_context_tokens.tolist() == [225] * 4


def test_a_wrong_value_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "attention.csv"
    path.write_text("prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,2,16,8.5\n0,0,-2,16,8.5\n")
    with pytest.raises(InputError, match=r"attention\.csv, line 3: n_decode is '-2', accepted is a number >= 0"):
        read_mixed_points(path)


@pytest.mark.slow
def test_published_tables_are_read_whole(measurements: Path) -> None:
    decode = read_decode_points(measurements / "aic_h200_sxm_vllm0.24_decode_attention.csv.gz")
    prefill = read_prefill_points(measurements / "aic_h200_sxm_vllm0.24_prefill_attention.csv.gz")
    assert (len(decode), len(prefill)) == (6770, 5763)
    assert np.all(decode.heads % decode.kv_heads == 0)
