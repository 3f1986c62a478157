"""AISimulate's tables: where they lie, what a column means, what cannot have been measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pandas import DataFrame

from l4sim.calibration.importers.aisimulate import import_aisimulate
from l4sim.calibration.importers.aisimulate.find import data_folder, find_tables
from l4sim.calibration.importers.aisimulate.operators import OPERATORS
from l4sim.calibration.importers.aisimulate.rows import (
    FROM_L2,
    NOT_BALANCED,
    NOT_SECONDS,
    TOO_FAST,
    TOO_SLOW,
    Read,
    read_table,
)
from l4sim.calibration.profile_json import write_profile, write_tables
from l4sim.cli.profile import profile
from l4sim.cost.build import build_cost
from l4sim.cost.profile import load_profile
from l4sim.errors import InputError
from l4sim.specs.gpu import GPUS
from l4sim.specs.model import load_model
from tests.calibration.importers.aisimulate_tables import A100, LAUNCH_MS, decodes, experts, gemm, write

BY_NAME = {operator.name: operator for operator in OPERATORS}


def read(table: DataFrame, operator: str, folder: Path) -> Read:
    path = folder / "table.parquet"
    table.to_parquet(path)
    return read_table(BY_NAME[operator], path, A100, "vLLM 0.14.0", "a test")


def changed(table: DataFrame, row: int, ms: float) -> DataFrame:
    copy = table.copy()
    copy.loc[row, "latency"] = ms
    return copy


def test_a_table_is_rows_by_kind_and_size_over_its_axes(tmp_path: Path) -> None:
    found = read(gemm(), "gemm", tmp_path)
    assert found.left_out == {}
    assert found.rows == 5 * 16
    assert found.table.seconds.shape == (16, 5)
    one = found.table.where(dtype="bfloat16", n=4096, k=1024)
    assert one.axes["tokens"].tolist() == [1, 16, 128, 1024, 8192]
    assert one.seconds[0, 0] == pytest.approx(LAUNCH_MS * 1e-3 + 2 * 4096 * 1024 / (0.8 * 2.039e12), rel=0.01)


def test_a_decodes_length_counts_the_new_token_and_a_window_that_is_not_told_is_none(tmp_path: Path) -> None:
    found = read(decodes(), "decode_attention", tmp_path)
    assert found.table.axes["length"].tolist() == [128, 1024, 8192]
    assert found.table.sizes["window"].tolist() == [0]


def test_rows_of_the_same_point_give_their_median(tmp_path: Path) -> None:
    table = gemm()
    again = [table.assign(latency=table.latency * factor) for factor in (1.0, 1.1, 3.0)]
    found = read(DataFrame({name: np.concatenate([one[name] for one in again]) for name in table}), "gemm", tmp_path)
    assert found.table.seconds == pytest.approx(1.1 * read(table, "gemm", tmp_path).table.seconds)


def test_of_several_kernels_the_engines_own_counts(tmp_path: Path) -> None:
    slower = decodes(kernel_source="triton").assign(latency=1.0)
    own = decodes(kernel_source="vllm_flash_attn_fa2")
    both = DataFrame({name: np.concatenate([own[name], slower[name]]) for name in own})
    assert read(both, "decode_attention", tmp_path).table.seconds == pytest.approx(
        read(own, "decode_attention", tmp_path).table.seconds
    )


@pytest.mark.parametrize("ms", [0.0, -1.0, float("nan"), float("inf")])
def test_a_row_without_a_time_is_left_out_and_counted(tmp_path: Path, ms: float) -> None:
    found = read(changed(gemm(), 40, ms), "gemm", tmp_path)
    assert found.left_out == {NOT_SECONDS: 1}
    assert np.isnan(found.table.seconds).sum() == 1


@pytest.mark.parametrize(
    ("row", "ms", "reason"),
    [
        (79, 5.0, TOO_FAST),  # 8,192 x 16,384 x 16,384 needs 14.1 ms of arithmetic.
        (15, 0.01, TOO_FAST),  # One token x 16,384 x 16,384: half a gigabyte in 10 us.
        (15, 300.0, TOO_SLOW),  # It could be padded to 16 tokens.
        (79, 20000.0, TOO_SLOW),
    ],
)
def test_an_impossible_row_is_left_out_and_counted(tmp_path: Path, row: int, ms: float, reason: str) -> None:
    found = read(changed(gemm(), row, ms), "gemm", tmp_path)
    assert found.left_out == {reason: 1}
    assert np.isnan(found.table.seconds).sum() == 1


def test_a_shape_in_another_unit_is_left_out_whole(tmp_path: Path) -> None:
    table = gemm()
    shape = (table.n == 1024) & (table.k == 256)
    found = read(table.assign(latency=np.where(shape, 1e3 * table.latency, table.latency)), "gemm", tmp_path)
    assert found.left_out == {TOO_SLOW: 5}
    assert len(found.table.where(n=1024, k=256)) == 0


def test_bytes_that_l2_served_are_taken_as_memory_serves_them(tmp_path: Path) -> None:
    table = gemm()
    row = table.index[(table.m == 1) & (table.n == 4096) & (table.k == 4096)][0]
    found = read(changed(table, row, 9e-3), "gemm", tmp_path)
    assert found.left_out == {FROM_L2: 1}
    assert found.table.where(n=4096, k=4096).seconds[0, 0] == pytest.approx(2 * 4096**2 / (0.8 * 2.039e12), rel=0.02)


def test_experts_that_are_called_balanced_and_are_not_are_left_out(tmp_path: Path) -> None:
    table = experts()
    grouped = (table.distribution == "balanced") & (table.moe_ep_size == 4)
    found = read(table.assign(latency=np.where(grouped, 4 * table.latency, table.latency)), "experts", tmp_path)
    assert found.left_out == {NOT_BALANCED: 6}
    assert set(found.table.where(moe_ep=4).kinds["distribution"]) == {"power_law_1.2"}


@pytest.mark.parametrize("operator", ["gemm", "experts", "decode_attention"])
@pytest.mark.parametrize(("unit", "factor"), [("seconds", 1e-3), ("microseconds", 1e3)])
def test_a_table_in_another_unit_is_refused(tmp_path: Path, operator: str, unit: str, factor: float) -> None:
    table = {"gemm": gemm, "experts": experts, "decode_attention": decodes}[operator]()
    with pytest.raises(InputError, match=r"table\.parquet: bfloat16.*latency should be in ms"):
        read(table.assign(latency=factor * table.latency), operator, tmp_path)


def test_one_kind_of_rows_in_another_unit_is_refused_by_its_name(tmp_path: Path) -> None:
    own, other = gemm(), gemm(gemm_dtype="fp8")
    both = {name: np.concatenate([own[name], other[name]]) for name in own}
    both["latency"] = np.concatenate([own.latency, 1e3 * other.latency])
    with pytest.raises(InputError, match=r"fp8: the fastest of 80 rows takes 3\.08 s, which no kernel does"):
        read(DataFrame(both).assign(latency=np.concatenate([own.latency, 1e6 * other.latency])), "gemm", tmp_path)
    with pytest.raises(InputError, match=r"fp8: no row reaches 1% of what a100-80gb-sxm's peaks allow"):
        read(DataFrame(both), "gemm", tmp_path)


def test_many_rows_that_beat_the_peaks_are_no_rows_of_this_gpu(tmp_path: Path) -> None:
    table = gemm()
    with pytest.raises(InputError, match=r"rows are faster than a100-80gb-sxm's peak bandwidth and arithmetic"):
        read(table.assign(latency=np.maximum(1e-3, table.latency / 4)), "gemm", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m": None}, "column m is missing, found are"),
        ({"n": 0.5}, r"row 1: n is 0\.5, accepted is a whole number >= 0"),
        ({"k": "wide"}, "row 1: k is 'wide', accepted is a whole number >= 0"),
    ],
)
def test_a_column_that_cannot_be_read_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    table = gemm()
    for name, value in change.items():
        table = table.drop(columns=name) if value is None else table.assign(**{name: value})
    with pytest.raises(InputError, match=message):
        read(table, "gemm", tmp_path)


def test_the_newest_version_is_found_in_a_folder_and_as_the_package_has_it(tmp_path: Path) -> None:
    for version in ("0.9.1", "0.14.0"):
        write(tmp_path / "copy" / "a100_sxm" / f"vllm-{version}")
        write(tmp_path / "package" / "a100_sxm" / "gemm" / "vllm" / version)
    for folder in (tmp_path / "copy", tmp_path / "package", tmp_path / "copy" / "a100_sxm"):
        found = find_tables(folder, "a100_sxm", "vllm")
        assert found["gemm_perf"].version == "0.14.0"
        assert "0.14.0" in str(found["gemm_perf"].path)


def test_what_is_not_there_is_told_with_what_is(tmp_path: Path) -> None:
    write(tmp_path / "a100_sxm" / "vllm-0.14.0")
    with pytest.raises(InputError, match="no system 'h100_sxm', there are a100_sxm"):
        find_tables(tmp_path, "h100_sxm", "vllm")
    with pytest.raises(InputError, match="no tables of sglang"):
        find_tables(tmp_path, "a100_sxm", "sglang")
    with pytest.raises(InputError, match="no backend 'trtllm': accepted are vllm, sglang"):
        find_tables(tmp_path, "a100_sxm", "trtllm")
    with pytest.raises(InputError, match="no system 'mi300x': accepted are h100_sxm"):
        import_aisimulate(tmp_path, "mi300x", "vllm")
    with pytest.raises(InputError, match="no such folder"):
        data_folder(tmp_path / "nowhere")
    (tmp_path / "a100_sxm" / "vllm-0.14.0" / "gemm_perf.parquet").unlink()
    with pytest.raises(InputError, match="gemm_perf of a100_sxm in vLLM is missing"):
        import_aisimulate(tmp_path, "a100_sxm", "vllm")


def test_without_a_folder_the_installed_package_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of aisimulate_core, .* is installed: install aisimulate"):
        data_folder(None)
    package = tmp_path / "aisimulate_core"
    (package / "systems" / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert data_folder(None) == package / "systems" / "data"


def test_the_command_tells_errors_and_what_was_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a100_sxm" / "vllm-0.14.0", gemm_perf=changed(gemm(), 40, -1.0))
    asked = ["aisimulate", str(tmp_path), "--system", "a100_sxm", "--backend", "vllm", "--out", str(tmp_path / "out")]
    found = CliRunner().invoke(profile, ["import", *asked])
    assert found.exit_code == 0
    assert "gemm, between n" in found.output
    assert "gemm: 1 of 80 rows no number above 0" in found.output
    for wrong in (["--gpu", "h100-sxm"], ["--tensor-parallel", "2"]):
        refused = CliRunner().invoke(profile, ["import", *asked, *wrong])
        assert isinstance(refused.exception, InputError)
        assert "--system, --backend and --out are needed" in str(refused.exception)


def test_an_imported_profile_serves_what_its_tables_hold(tmp_path: Path) -> None:
    write(tmp_path / "tables" / "a100_sxm" / "vllm-0.14.0")
    imported = import_aisimulate(tmp_path / "tables", "a100_sxm", "vllm")
    write_tables(imported.tables, tmp_path / "profile")
    write_profile(imported.profile, tmp_path / "profile")
    made = load_profile(str(tmp_path / "profile"))
    assert (made.name, made.gpu, made.default_kernel) == ("a100-80gb-sxm-vllm", GPUS["a100-80gb-sxm"], "fa2")
    assert set(made.tables) == {"gemm", "experts", "decode_attention", "prefill_attention"}
    assert made.tables["gemm"].engine == "vLLM 0.14.0"
    assert made.errors["gemm, between n"]["mape_pct"] < 50
    assert build_cost(made, load_model("llama-3.1-8b"), max_num_batched_tokens=64, max_num_seqs=8)
