"""Rows of measured points, read for what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from l4sim.errors import InputError
from l4sim.recordings.points.rows import Ranks, read_points

HEADER = (
    "mode,backend,backend_version,model_path,system,gemm_quant_mode,moe_quant_mode,isl,osl,concurrency,tp_size,pp_size,"
    "attention_dp_size,moe_tp_size,moe_ep_size,ttft_ms,tpot_ms"
)


def table(folder: Path, *rows: str) -> Path:
    path = folder / "points.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def row(ranks: str = "4,1,1,4,1", measured: str = "80,9.5", **changed: str) -> str:
    values = {"mode": "agg", "version": "0.19.0", "gemm": "fp8", "concurrency": "16", **changed}
    return (
        f"{values['mode']},vllm,{values['version']},Qwen/Qwen3-32B,h100_sxm,{values['gemm']},fp8,1024,1024,"
        f"{values['concurrency']},{ranks},{measured}"
    )


def test_a_row_is_a_point(tmp_path: Path) -> None:
    [point], refused = read_points(table(tmp_path, row()))
    assert refused == []
    assert (point.model, point.gpu, point.engine, point.version) == ("Qwen/Qwen3-32B", "h100_sxm", "vllm", "0.19.0")
    assert (point.prompt_tokens, point.output_tokens, point.concurrency) == (1024, 1024, 16)
    assert (point.ttft_s, point.tpot_s) == pytest.approx((0.080, 0.0095))
    assert "Qwen3-32B fp8, vllm 0.19.0 on h100_sxm TP4, 1024+1024 tokens, 16 at a time" in point.name


def test_what_is_missing_stays_unknown(tmp_path: Path) -> None:
    [point], _ = read_points(table(tmp_path, row(version="", gemm="")))
    assert (point.version, point.weights) == (None, None)


def test_rows_that_repeat_each_other_are_one_point_of_medians(tmp_path: Path) -> None:
    rows = [row(measured="80,9"), row(measured="99,9.5"), row(measured="81,12"), row(concurrency="32")]
    points, _ = read_points(table(tmp_path, *rows))
    assert [point.lines for point in points] == [(2, 3, 4), (5,)]
    assert (points[0].ttft_s, points[0].tpot_s) == pytest.approx((0.081, 0.0095))


@pytest.mark.parametrize(
    ("told", "ranks"),
    [
        ("8,1,1,8,1", Ranks(8)),
        ("4,1,1,1,4", Ranks(4, 1, 4)),
        # A dense model's, whose experts' sizes are 1, or 0.
        ("2,1,,1,1", Ranks(2)),
        ("1,1,,0,0", Ranks(1)),
        # TP 8 and EP 8, multiplied: the same measurement stands beside as tp_size 8.
        ("64,1,1,8,8", Ranks(8, 1, 8)),
        ("16,1,1,4,4", Ranks(4, 1, 4)),
        # Data-parallel attention, told or following from the experts' GPUs.
        ("4,1,4,1,16", Ranks(1, 4, 4)),
        ("1,1,,2,1", Ranks(1, 2)),
        ("2,1,,4,1", Ranks(2, 2)),
    ],
)
def test_who_shares_what(tmp_path: Path, told: str, ranks: Ranks) -> None:
    [point], _ = read_points(table(tmp_path, row(told)))
    assert point.ranks == ranks


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (row(mode="disagg"), "mode disagg: prompts and decoding on instances of their own are not simulated yet"),
        (row("4,2,1,4,1"), "pp_size 2: pipeline stages are not simulated"),
        (row("4,1,1,3,1"), "tp_size 4 x attention_dp_size 1 GPUs for attention, and moe_tp_size 3 x moe_ep_size 1"),
        (row(concurrency=""), "concurrency is missing"),
        (row(concurrency="2.5"), "concurrency is 2.5, accepted is a whole number >= 1"),
        (row(measured="80,0"), "tpot_ms is 0, accepted is a number of milliseconds above 0"),
        (row(measured="soon,9"), "ttft_ms is soon, accepted is a number"),
    ],
)
def test_what_cannot_be_is_refused_by_its_line(tmp_path: Path, line: str, reason: str) -> None:
    points, [refused] = read_points(table(tmp_path, row(), line))
    assert len(points) == 1
    assert refused.line == 3
    assert reason in refused.reason


def test_a_table_without_a_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("backend,model_path\nvllm,x\n")
    with pytest.raises(InputError, match="column 'system' is missing; needed are backend"):
        read_points(path)


def test_the_published_table_is_read_whole(shared: Path) -> None:
    points, refused = read_points(shared / "validation" / "inferencex_points" / "points.csv.gz")
    assert (len(points), sum(len(point.lines) for point in points), len(refused)) == (946, 1154, 277)
    assert {each.reason.split(":")[0] for each in refused} == {"mode disagg"}
