"""``l4sim profile``: what it prints is what the profiles hold; wrong input ends with 2 and one line."""

import gzip
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from l4sim.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ending:
        main(["profile", *arguments])
    captured = capsys.readouterr()
    return int(ending.value.code or 0), captured.out, captured.err


def test_list_says_what_was_measured_and_what_was_not(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list")
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert code == 0
    assert "roofline, not measured" in lines["l40-48gb"]
    assert "roofline, not measured" not in lines["h200-sxm"]


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["h20-141gb"]["basis"] == "roofline, not measured"
    assert rows["h200-sxm"]["gpu"]["sms"] == 132


def test_show_gives_provenance_errors_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "show", "h200-sxm", "--model", "qwen3-32b", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["basis"] == "measured"
    assert report["errors"]["linear"]["mape_pct"] <= 6
    # 65.5 GB of weights take 13.6 ms at 4.8 TB/s.
    assert report["iterations"][0]["seconds"] > 0.0136
    assert all(row["context_tokens"] <= 40_960 for row in report["iterations"])


def test_show_of_a_roofline_says_so_beside_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "show", "l40-48gb")
    assert "l40-48gb (roofline, not measured)" in out
    assert "seconds of an iteration (roofline, not measured)" in out


@pytest.mark.slow
def test_show_draws_a_picture_on_request(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, _ = run(capsys, "show", "h200-sxm", "--out", str(tmp_path / "new"))
    assert code == 0
    assert (tmp_path / "new" / "profile.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_penalty_of_unequal_lengths_is_printed_and_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = run(capsys, "show", "h200-sxm", "--penalty", "--out", str(tmp_path))
    assert code == 0
    assert "flashinfer-tensor: not measured" in out
    assert (tmp_path / "penalty.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads(run(capsys, "show", "h200-sxm", "--penalty", "--json")[1])
    assert {cell["kernel"] for cell in told["predicted"]} >= {"fa3", "fa2", "flashinfer-batch"}
    # What others measured has no batches of unequal lengths.
    assert told["measured"] == []


@pytest.mark.slow
def test_the_penalty_is_shown_as_it_was_measured_where_there_are_points(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = run(capsys, "show", "h200-flashinfer", "--penalty", "--out", str(tmp_path))
    assert code == 0
    assert "flashinfer-tensor: fitted to batches of equal and of unequal lengths" in out
    assert "pairs of batches, 4,096 to 1,048,576 tokens" in out
    assert (tmp_path / "penalty-measured.png").read_bytes().startswith(b"\x89PNG")
    measured = json.loads(run(capsys, "show", "h200-flashinfer", "--penalty", "--json")[1])["measured"]
    # With 8 KV heads on 132 SMs, tensor cores split no batch of 33 or more: one long request runs alone at the end.
    alone = [p for p in measured if (p["kernel"], p["pattern"]) == ("flashinfer-tensor", "one-long")]
    long_enough = [p for p in alone if p["total_tokens"] > 60_000]
    assert max(p["measured"] for p in long_enough if p["requests"] <= 24) < 1.3
    assert min(p["measured"] for p in long_enough if 40 <= p["requests"] <= 80) > 3


def test_import_tells_a_vidur_csv_by_its_columns(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "attention.csv"
    path.write_text("m,latency\n1,2\n")
    code, _, err = run(capsys, "import", str(path), "--gpu", "a800", "--out", str(tmp_path / "out"))
    assert code == 2
    assert "column time_stats.attn_decode.median is missing" in err


@pytest.mark.slow
def test_import_reads_aiconfigurators_tables_under_their_own_names(
    capsys: pytest.CaptureFixture[str], shared: Path, tmp_path: Path
) -> None:
    names = {
        "gemm_bf16": "gemm_perf",
        "decode_attention": "generation_attention_perf",
        "prefill_attention": "context_attention_perf",
        "allreduce": "custom_allreduce_perf",
    }
    for own, upstream in names.items():
        [table] = (shared / "measurements").glob(f"aic_h100_sxm_*_{own}.csv.gz")
        frame = pd.read_csv(table)
        kept = frame if own == "allreduce" else frame[::50]
        kept.to_parquet(tmp_path / f"{upstream}.parquet")
    out_folder = str(tmp_path / "imported")
    code, out, _ = run(capsys, "import", str(tmp_path), "--gpu", "h100-sxm", "--out", out_folder, "--json")
    assert code == 0
    assert json.loads(out)["attention, fa3, decode"]["mape_pct"] <= 10


@pytest.mark.slow
def test_fit_from_points_writes_a_profile_and_prints_its_errors(
    capsys: pytest.CaptureFixture[str], shared: Path, tmp_path: Path
) -> None:
    for table in sorted((shared / "measurements").glob("aic_h100_sxm_*.csv.gz")):
        header, *rows = gzip.decompress(table.read_bytes()).decode().splitlines()
        # All-reduce tables are short; of the others a fiftieth keeps the fit under a second.
        kept = rows if "allreduce" in table.name else rows[::50]
        (tmp_path / table.name.removesuffix(".gz")).write_text("\n".join([header, *kept]))
    out_folder = str(tmp_path / "fitted")
    code, out, _ = run(capsys, "fit", "h100-sxm", "--points", str(tmp_path), "--out", out_folder, "--json")
    assert code == 0
    assert json.loads(out)["linear"]["mape_pct"] <= 10
    report = json.loads(run(capsys, "show", out_folder, "--json")[1])
    assert report["basis"] == "measured"
    assert report["errors"] == json.loads(out)


def test_fit_from_the_datasheet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "fit", "a800", "--roofline", "--out", str(tmp_path))
    assert code == 0
    assert "Nothing measured" in out
    assert "a800 (roofline, not measured)" in run(capsys, "show", str(tmp_path))[1]


def thinned(folder: Path, out: Path) -> Path:
    """A folder of points with few of its mixed batches, so that they are fitted in a second."""
    out.mkdir()
    for path in folder.iterdir():
        shutil.copyfile(path, out / path.name)
    for name, kept in (("attention.csv.gz", "prefill_chunk == 0 or n_decode == 0"), ("skew.csv.gz", "n < 0")):
        points = pd.read_csv(folder / name)
        pd.concat([points.query(kept), points.iloc[::40]]).drop_duplicates().to_csv(out / name, index=False)
    return out


@pytest.mark.slow
def test_import_writes_a_profile_of_a_vllm_run(
    capsys: pytest.CaptureFixture[str], recorded_folder: Path, tmp_path: Path
) -> None:
    folder = thinned(recorded_folder / "profile", tmp_path / "points")
    options = ["--gpu", "rtx-pro-6000", "--model", "llama-3.1-8b", "--out", str(tmp_path), "--host-overhead-ms", "2"]
    code, out, _ = run(capsys, "import", str(folder), *options, "--json")
    assert code == 0
    assert json.loads(out)["linear"]["mape_pct"] <= 10
    report = json.loads(run(capsys, "show", str(tmp_path), "--json")[1])
    assert report["provenance"]["kernels"] == "vLLM 0.19.0"
    assert report["host_overhead"] == {"decode_s": 0.002, "prompt_s": 0.002, "sequence_s": 0.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "b300"], "no profile 'b300'"),
        (["show", "h200-sxm", "--kernel", "fa9"], "no kernel 'fa9'"),
        (["show", "h200-sxm", "--model", "gpt-5"], "no model 'gpt-5'"),
        (["fit", "h200-sxm", "--out", "x"], "either --points FOLDER or --roofline"),
        (["fit", "h200-sxm", "--points", "nowhere", "--out", "x"], "nowhere: expected is one table"),
        (
            ["import", "nowhere", "--gpu", "l40-48gb", "--model", "tiny", "--out", "x"],
            "nowhere: no such file or folder",
        ),
        (["import", ".", "--gpu", "l40-48gb", "--out", "x"], ".: --model is missing"),
        (
            ["import", "pyproject.toml", "--gpu", "a800", "--model", "tiny", "--out", "x"],
            "--model, --tensor-parallel and --host-overhead-ms are for LLMServingSim's folders",
        ),
        (["fit", "b300", "--roofline", "--out", "x"], "no GPU 'b300'"),
    ],
)
def test_wrong_input_ends_with_2_and_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_links_are_listed_with_their_source_and_how_far_they_are_off(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "links", "--json")
    told = json.loads(out)
    assert code == 0
    assert {link["name"] for link in told["links"]} >= {"pcie", "nvlink-4"}
    assert next(row for row in told["errors"] if row["link"] == "pcie")["mape_pct"] < 25
    assert "pcie-5-p2p" in run(capsys, "links")[1]


def test_tables_of_all_reduces_are_thinned_to_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, measurements: Path
) -> None:
    table = measurements / "aic_h100_sxm_vllm0.24_allreduce.csv.gz"
    code, out, err = run(
        capsys,
        "all-reduce",
        str(table),
        "--gpu",
        "h100-sxm",
        "--source",
        "theirs",
        "--out",
        str(tmp_path / "h100.json"),
    )
    assert code == 0, err
    assert "all-reduce, 8 GPUs, eager, vLLM 0.24" in out
    assert json.loads((tmp_path / "h100.json").read_text())["source"] == "theirs"


def test_show_tells_what_the_tensor_parallel_part_rests_on(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "show", "h200-flashinfer", "--model", "llama-3.1-70b", "--tensor-parallel", "4", "--json")
    report = json.loads(out)
    assert report["kernel_basis"] == "measured; all-reduce among 4 measured in vLLM 0.31.0"
    assert report["errors"]["all-reduce, 4 GPUs, captured, vLLM 0.24.0"]["points"] == 21
    # 17 GB of weights take 3.7 ms a rank; 161 all-reduces of 5 us or so are 6 % of the whole.
    assert 0.0115 < report["iterations"][0]["seconds"] < 0.0130
