"""``l4sim models``: what it prints is what the files hold; what cannot be read is named with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from l4sim.cli import main
from l4sim.specs.model import list_models, load_model
from tests.specs.families.published import PUBLISHED


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ending:
        main(["models", *arguments])
    captured = capsys.readouterr()
    return int(ending.value.code or 0), captured.out, captured.err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folders of two models, and of one that no family has."""
    published = {"oss": PUBLISHED["gpt-oss-120b"].fields, "dense": PUBLISHED["Llama-3.1-70B"].fields}
    files = {**published, "t5": {"model_type": "t5"}}
    for name, fields in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(fields))
    return tmp_path


def test_without_a_name_the_bundled_ones_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == 0
    assert {line.split(" ")[0] for line in out.splitlines()[1:]} >= set(list_models())


def test_a_bundled_model_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "llama-3.1-8b")
    assert code == 0
    assert "llama-3.1-8b: 8.03 B parameters, 7.50 B active; contexts up to 131,072 tokens" in out
    assert "32 x grouped-query attention (heads 32, KV heads 8, head dim 128), dense MLP (width 14,336)" in out
    assert "KV 131,072 bytes per token in bfloat16" in out
    assert "KV blocks of 2,097,152 bytes; a sequence's tables: 1 x all tokens (16 tokens a block)" in out
    assert "simulated" not in out


def test_one_model_as_json(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    for source in (folder / "oss", folder / "oss" / "config.json"):
        code, out, _ = run(capsys, str(source), "--json")
        (row,) = json.loads(out)["models"]
        model = load_model(str(source))
        assert code == 0
        assert (row["name"], row["refused"], row["simulated"]) == ("oss", None, False)
        for name in ("parameters", "active_parameters", "weight_bytes", "kv_bytes_per_token", "max_model_len"):
            assert row[name] == getattr(model, name)
        assert row["kv_bytes_of_sequence"] == {str(n): model.kv_bytes(n) for n in (1024, 32_768, 131_072)}
        assert row["kv_blocks"]["bytes"] == 18 * 16 * 2048
        assert [(group["kind"], group["block_tokens"]) for group in row["kv_blocks"]["groups"]] == [
            ("window", 16),
            ("full", 16),
        ]
        # All 1,024 tokens, and the 128 of the window.
        assert row["kv_blocks"]["of_sequence"]["1024"] == 64 + 8
        sliding, full = row["layer_groups"]
        assert (sliding["layers"], sliding["window_tokens"], full["window_tokens"]) == (18, 128, None)
        assert sliding["attention"]["kind"] == "sliding-window attention"
        assert full["mlp"] == {
            "kind": "experts",
            "experts": 128,
            "per_token": 4,
            "intermediate": 2880,
            "shared": 0,
            "shared_gate": False,
            "gated": True,
            "latent": None,
        }


def test_a_folder_of_models_names_what_cannot_be_read(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, _ = run(capsys, str(folder), "--json")
    rows = {row["name"]: row for row in json.loads(out)["models"]}
    assert code == 0
    assert rows.keys() == {"oss", "dense", "t5"}
    assert (rows["dense"]["refused"], rows["dense"]["simulated"]) == (None, True)
    assert "model_type is 't5'" in rows["t5"]["refused"]
    assert rows["t5"].keys() == rows["dense"].keys()
    assert {value for name, value in rows["t5"].items() if name not in ("name", "refused")} == {None}
    _, out, _ = run(capsys, str(folder))
    assert "refused: " in out
    assert out.splitlines()[1].split()[:4] == ["dense", "80", "70.55", "B"]


def test_one_that_cannot_be_read_is_an_error_in_one_line(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, err = run(capsys, str(folder / "t5"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "model_type is 't5'" in err
    code, out, _ = run(capsys, str(folder / "t5"), "--json")
    assert (code, json.loads(out)["models"][0]["name"]) == (0, "t5")


def test_no_such_model_and_an_empty_folder_are_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, "gpt-5", "--json")[0] == 2
    code, _, err = run(capsys, str(tmp_path))
    assert code == 2
    assert "no config.json there, nor in the folders in it" in err


def test_kv_may_be_asked_for_in_another_format(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "llama-3.1-8b", "--kv-dtype", "fp8", "--json")
    assert json.loads(out)["models"][0]["kv_bytes_per_token"] == 65_536


def test_how_many_fit_a_gpu_is_told_with_what_is_left_for_kv(capsys: pytest.CaptureFixture[str]) -> None:
    """Of 126 usable GiB on an H200: 15 of weights, 2.2 of activations, and 4 of a sequence of 32K tokens."""
    _, out, _ = run(capsys, "llama-3.1-8b", "--json")
    fits = {fit["gpu"]: fit for fit in json.loads(out)["models"][0]["fits"]}
    assert (fits["h200-sxm"]["instances_per_gpu"], fits["h200-sxm"]["tensor_parallel"]) == (5, 1)
    assert fits["h200-sxm"]["kv_tokens"] == 27 * 32_768
    _, out, _ = run(capsys, "llama-3.1-70b", "--json")
    fits = {fit["gpu"]: fit for fit in json.loads(out)["models"][0]["fits"]}
    assert (fits["h200-sxm"]["instances_per_gpu"], fits["h200-sxm"]["tensor_parallel"]) == (0, 2)
    assert (fits["rtx-4090"]["tensor_parallel"], fits["l40-48gb"]["tensor_parallel"]) == (8, 4)
