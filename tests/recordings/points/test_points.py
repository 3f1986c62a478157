"""Points simulated: the model, the closed loop, the errors, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from l4sim.cli import main
from l4sim.errors import InputError
from l4sim.recordings.points.flags import flags_of
from l4sim.recordings.points.instance import closed_loop, setup_of
from l4sim.recordings.points.models import find_model
from l4sim.recordings.points.predict import kind_of, predict_points, simulate
from l4sim.recordings.points.rows import Point, Ranks, RefusedRow
from l4sim.recordings.points.summary import Points
from l4sim.specs.model import load_model
from tests.recordings.points.test_rows import row, table

POINT = Point((2,), "Qwen/Qwen3-32B", "h100_sxm", "vllm", "0.19.0", None, None, 1024, 1024, 4, Ranks(2), 0.08, 0.0145)


@pytest.mark.parametrize(
    ("name", "weights", "experts", "held"),
    [
        # As they were published: MXFP4 that a table calls nvfp4, blocks that it calls fp8.
        ("openai/gpt-oss-120b", "nvfp4", "nvfp4", {"mxfp4": 60_914_073_600}),
        ("deepseek-ai/DeepSeek-R1", "fp8", "fp8_block", {"fp8-block128": 669_228_955_312}),
        ("moonshotai/Kimi-K2.5", "int4_wo", "int4_wo", {"int4-g32": 570_760_888_320}),
        # Another checkpoint of the same model.
        ("MiniMaxAI/MiniMax-M2.5", "nvfp4", "nvfp4", {"nvfp4": 126_382_768_128}),
        ("zhipuai/GLM-5", "fp8", "fp8_block", {"fp8-block128": 742_054_670_784}),
        # All linear layers in what the row tells; 2 x 128,256 x 8,192 of embedding and head stay.
        ("meta-llama/Llama-3.1-70B", "fp8", "fp8", {"fp8": 68_451_041_280, "bfloat16": 4_202_692_608}),
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "fp8", "fp8", {"fp8": 6_979_321_856}),
        ("Qwen/Qwen3-32B", None, None, {"bfloat16": 65_522_892_800}),
    ],
)
def test_a_model_is_found_by_its_published_name(
    name: str, weights: str | None, experts: str | None, held: dict[str, int]
) -> None:
    taken = find_model(name, weights, experts).weight_bytes_by_dtype
    assert {dtype: taken[dtype] for dtype in held} == held


def test_a_folder_s_models_come_first(tmp_path: Path) -> None:
    (tmp_path / "Some__Model").mkdir()
    bundled = Path(str(load_model.__globals__["_BUNDLED"])) / "llama-3.2-3b.json"
    (tmp_path / "Some__Model" / "config.json").write_text(bundled.read_text())
    assert find_model("Some/Model", None, None, tmp_path).parameters == load_model("llama-3.2-3b").parameters
    with pytest.raises(InputError, match="no model 'Some/Model' is bundled: give a folder"):
        find_model("Some/Model", None, None)
    with pytest.raises(InputError, match="weights in int2: accepted are bfloat16, fp8"):
        find_model("Qwen/Qwen3-32B", "int2", None)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("qwen3-32b", "dense"),
        ("llama-3.2-3b", "dense"),
        ("gpt-oss-120b", "experts"),
        ("deepseek-r1", "latent and hybrid"),
        ("qwen3.5-397b-a17b", "latent and hybrid"),
    ],
)
def test_kinds_of_models(name: str, kind: str) -> None:
    assert kind_of(load_model(name)) == kind


def test_inferencex_draws_lengths_and_others_do_not() -> None:
    drawn, fixed = closed_loop(POINT, 50), closed_loop(replace(POINT, output_tokens=500), 5)
    assert (len(drawn), drawn.concurrency) == (200, 4)
    for tokens in (drawn.prompt_tokens, drawn.output_tokens):
        assert 819 <= tokens.min() < 840
        assert 1000 < tokens.max() <= 1024
    assert set(fixed.prompt_tokens.tolist()) == {1024}
    assert set(fixed.output_tokens.tolist()) == {500}


def test_servers_are_told_what_their_scripts_say() -> None:
    kimi = replace(POINT, model="moonshotai/Kimi-K2.5", gpu="b200_sxm", weights="nvfp4")
    assert (flags_of(kimi).kv_dtype, flags_of(kimi).tokens(8192), flags_of(kimi).tokens(1024)) == ("fp8", 16384, 2048)
    # Others' runs have defaults.
    assert flags_of(replace(kimi, output_tokens=100)).kv_dtype is None
    deepseek = replace(kimi, model="deepseek-ai/DeepSeek-R1", engine="sglang", weights="fp8")
    assert [flags_of(deepseek).recv_interval(concurrency) for concurrency in (8, 16)] == [10, 30]


def test_an_instance_is_what_its_row_says() -> None:
    setup = setup_of(POINT)
    options = setup.options
    assert (options.tensor_parallel, options.engine_rules, options.prefix_caching) == (2, "vllm-0.19", False)
    assert (setup.engine.max_num_seqs, setup.engine.max_num_batched_tokens) == (4, 8192)
    assert setup_of(replace(POINT, engine="sglang", version="0.5.9")).options.engine_rules == "sglang-0.5"
    with pytest.raises(InputError, match="engine trtllm: accepted are vllm and sglang"):
        setup_of(replace(POINT, engine="trtllm"))
    with pytest.raises(InputError, match=r"no GPU 'mi300x', AMD's are not modelled"):
        setup_of(replace(POINT, gpu="mi300x"))


def test_a_run_that_is_cut_short_stands_for_the_whole() -> None:
    point = replace(POINT, concurrency=16)
    setup = setup_of(point)
    whole, cut = simulate(point, setup, 10), simulate(point, setup, 6)
    assert cut[0] == pytest.approx(whole[0], rel=0.05)
    assert cut[1] == pytest.approx(whole[1], rel=0.01)


def test_what_cannot_be_simulated_is_told_for_each_of_its_rows() -> None:
    wrong = replace(POINT, lines=(3, 7), gpu="tpu_v9")
    [predicted], refused = predict_points([POINT, wrong])
    assert predicted.point is POINT
    assert [each.line for each in refused] == [3, 7]
    assert "no GPU 'tpu-v9'" in refused[0].reason


def test_errors_by_group() -> None:
    [right], _ = predict_points([POINT])
    half = replace(right, tpot_s=POINT.tpot_s / 2, ttft_s=2 * POINT.ttft_s)
    most = replace(right, tpot_s=POINT.tpot_s * 1.1, ttft_s=POINT.ttft_s, point=replace(POINT, concurrency=64))
    found = Points((half, most), (RefusedRow(9, "x", "no GPU"),))
    assert (found.rows, found.worst(1), found.reasons["no GPU"]) == (3, [half], 1)
    assert found.whole is not None
    assert (found.whole.tpot_mape_pct, found.whole.ttft_mape_pct) == pytest.approx((30, 50))
    assert found.whole.tpot_bias_pct == pytest.approx(-20)
    by_load = {group.name: group.tpot_mape_pct for group in found.groups if group.by == "concurrency"}
    assert by_load == pytest.approx({"<= 8": 50, "> 8": 10})
    assert Points((), ()).to_json()["tpot_mape_pct"] is None


def test_the_command_prints_errors_and_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path, row("2,1,1,1,1", gemm="", concurrency="2").replace("fp8", ""), row(mode="disagg"))
    with pytest.raises(SystemExit):
        main(["validate", "points", str(path), "--json", "--jobs", "1"])
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"rows", "points", "refused", "tpot_mape_pct", "ttft_mape_pct", "groups"}
    assert (found["rows"], len(found["points"]), found["refused"][0]["line"]) == (2, 1, 3)
    assert found["points"][0]["tpot_s"]["error_pct"] == pytest.approx(
        100 * (found["points"][0]["tpot_s"]["predicted"] / 0.0095 - 1)
    )
    with pytest.raises(SystemExit):
        main(["validate", "points", str(path), "--jobs", "1"])
    out = capsys.readouterr().out
    assert "2 rows: 1 points simulated, 1 rows refused" in out
    assert "refused, 1 rows: mode disagg" in out
