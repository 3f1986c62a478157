"""LLMServingSim folders: operators add up as vLLM runs them, and nothing in a folder is passed over."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.calibration.importers.llmservingsim import import_llmservingsim, read_operators
from l4sim.calibration.kernels.fa2 import scaled_fa2
from l4sim.calibration.points.tables import read_points
from l4sim.calibration.profile_json import write_profile
from l4sim.cost.attention import build_attention
from l4sim.cost.build import build_cost
from l4sim.cost.operators import MeasuredOperators
from l4sim.cost.profile import load_profile
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU, GPUS
from l4sim.specs.model import load_model, uniform_layers

LLAMA_8B = load_model("llama-3.1-8b")
RTX = GPUS["rtx-pro-6000"]

Times = dict[str, tuple[float, float]]

# Microseconds at 1 and at 2,048 tokens.
DENSE: Times = {
    "embedding": (3, 8),
    "layernorm": (2, 16),
    "qkv_proj": (36, 303),
    "rotary_emb": (3, 12),
    "o_proj": (26, 193),
    "gate_up_proj": (159, 1153),
    "act_fn": (3, 94),
    "down_proj": (86, 609),
    "final_layernorm": (2, 20),
}
PER_SEQUENCE: Times = {"lm_head": (700, 830), "sampler": (25, 160)}


def write_folder(
    folder: Path,
    dense: Times,
    per_sequence: Times = PER_SEQUENCE,
) -> Path:
    for name, size, last, operators in (
        ("dense.csv", "tokens", 2048, dense),
        ("per_sequence.csv", "sequences", 256, per_sequence),
    ):
        rows = [
            f"{operator},{at},{us}"
            for operator, (first_us, last_us) in operators.items()
            for at, us in ((1, first_us), (last, last_us))
        ]
        (folder / name).write_text("\n".join([f"layer,{size},time_us", *rows]))
    return folder


def operators_of(folder: Path) -> MeasuredOperators:
    return read_operators(folder / "dense.csv", folder / "per_sequence.csv", LLAMA_8B, 1)


def test_a_layer_has_two_norms_and_each_other_operator_once(tmp_path: Path) -> None:
    operators = operators_of(write_folder(tmp_path, DENSE))
    assert float(operators.layer.at(1)) == pytest.approx((36 + 26 + 159 + 86 + 3 + 3 + 2 * 2) * 1e-6)
    assert float(operators.once.at(2048)) == pytest.approx(28e-6)
    assert float(operators.sampled.at(256)) == pytest.approx(990e-6)


def test_qwen3s_norms_of_queries_and_keys_count_where_they_are(tmp_path: Path) -> None:
    operators = operators_of(write_folder(tmp_path, DENSE | {"qk_norm": (5, 50)}))
    assert float(operators.layer.at(1)) == pytest.approx((317 + 5) * 1e-6)


def test_the_measured_model_uses_its_own_operators_and_others_the_fit(
    tmp_path: Path, batch: Callable[..., Batch]
) -> None:
    operators = operators_of(write_folder(tmp_path, DENSE))
    profile = replace(load_profile("rtx-pro-6000"), operators=(operators,))
    cost = build_cost(profile, LLAMA_8B)
    attention_s = cost.attention.attention_s(batch([1]))  # type: ignore[attr-defined]
    expected_s = 32 * (317e-6 + attention_s) + 5e-6 + 725e-6 + profile.host.decode_s
    assert cost.iteration_s(batch([1])) == pytest.approx(expected_s)
    other = load_model("qwen3-32b")
    floor_s = (other.weight_bytes - other.vocab * other.hidden * 2) / RTX.memory_bytes_per_s
    assert floor_s < build_cost(profile, other).iteration_s(batch([1])) < 1.5 * floor_s


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        (DENSE | {"moe": (1, 2)}, r"dense\.csv: operator moe is not of a dense decoder"),
        ({name: times for name, times in DENSE.items() if name != "o_proj"}, r"dense\.csv: no rows with layer o_proj"),
        (DENSE | {"act_fn": (0, 1)}, r"dense\.csv, line 14: time_us is '0'"),
    ],
)
def test_what_is_missing_or_unknown_is_named(tmp_path: Path, dense: Times, message: str) -> None:
    with pytest.raises(InputError, match=message):
        operators_of(write_folder(tmp_path, dense))


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither dense\.csv nor dense\.csv\.gz"):
        import_llmservingsim(tmp_path, RTX, LLAMA_8B)


def write_attention(folder: Path, gpu: GPU, heads: int, kv_heads: int) -> None:
    """Uniform, prefill and mixed batches as FA2 would take them, by figures scaled to the GPU."""
    measured = load_profile("rtx-pro-6000")
    coefficients = scaled_fa2(measured.kernels["fa2"].coefficients, measured.gpu, gpu)
    model = build_attention("fa2", coefficients, heads=heads, kv_heads=kv_heads, head_dim=128, sms=gpu.sms)
    grid = [(0, 0, n, kv) for n in (1, 2, 4, 8, 16, 32, 64, 128) for kv in (16, 128, 256, 512, 1024, 2048, 4096, 8192)]
    grid += [(chunk, cached, 0, 0) for chunk in (16, 256, 2048) for cached in (0, 1024, 8192)]
    grid += [(chunk, 0, n, kv) for chunk in (64, 1024) for n in (4, 32, 128) for kv in (64, 1024)]
    rows = ["prefill_chunk,kv_prefill,n_decode,kv_decode,time_us"]
    for chunk, cached, decodes, kv in grid:
        contexts = np.full(decodes, kv + 1, np.int64)
        prefills = (Prefill(chunk, cached),) if chunk else ()
        seconds = model.attention_s(Batch(contexts, int(contexts.sum()), prefills))
        rows.append(f"{chunk},{cached},{decodes},{kv},{seconds * 1e6}")
    (folder / "attention.csv").write_text("\n".join(rows))


@pytest.mark.slow
def test_a_folder_without_skewed_batches_of_another_gpu_and_model_is_imported(tmp_path: Path) -> None:
    gpu, model = GPUS["rtx-4090"], load_model("qwen3-32b")
    # An RTX 4090 has less bandwidth, and half of this model's products are larger than Llama's.
    slower = {name: (3 * first, 3 * last) for name, (first, last) in (DENSE | {"qk_norm": (5, 50)}).items()}
    write_folder(tmp_path, slower, {"lm_head": (900, 1100)})
    rank = uniform_layers(model).attention.of_rank(2)
    write_attention(tmp_path, gpu, rank.heads, rank.kv_heads)
    write_profile(import_llmservingsim(tmp_path, gpu, model, tensor_parallel=2), tmp_path / "imported")
    imported = load_profile(str(tmp_path / "imported"))
    assert imported.gpu == gpu
    assert not {"skew", "skew_64", "skew_all"} & set(imported.kernels["fa2"].errors)
    assert imported.kernels["fa2"].errors["decode"]["mape_pct"] < 5
    assert imported.operators[0].tensor_parallel == 2
    # 64 layers of 966 µs, the head of 900 µs and the host are the least that a token takes.
    cost = build_cost(imported, model, tensor_parallel=2)
    one = Batch(np.array([1]), 1)
    assert cost.iteration_s(one) > 64 * 966e-6 + 900e-6 + imported.host.decode_s


@pytest.mark.slow
def test_times_that_the_gpu_cannot_reach_are_refused(tmp_path: Path) -> None:
    # Llama's products on an RTX PRO 6000, taken for those of a model four times as wide.
    write_folder(tmp_path, DENSE)
    write_attention(tmp_path, RTX, 64, 8)
    with pytest.raises(InputError, match="of 10 matrix products are faster than rtx-pro-6000 can be"):
        import_llmservingsim(tmp_path, RTX, load_model("llama-3.1-70b"))


@pytest.mark.slow
def test_times_of_one_rank_are_not_taken_for_those_of_two(tmp_path: Path) -> None:
    """Llama's head reads 1.05 GB in 700 us, 94 % of the bandwidth: half of that would be slow beyond belief."""
    write_folder(tmp_path, DENSE)
    write_attention(tmp_path, RTX, 16, 4)
    with pytest.raises(InputError, match=r"lm_head takes 700 us, 47% of rtx-pro-6000's bandwidth .* one of 2 ranks"):
        import_llmservingsim(tmp_path, RTX, LLAMA_8B, tensor_parallel=2)


def test_a_folder_profiled_for_other_ranks_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, DENSE)
    (tmp_path / "meta.yaml").write_text("tp_degrees: [1, 2]\n")
    with pytest.raises(
        InputError, match=r"meta\.yaml: tp_degrees are \[1, 2\], tables of tensor parallel 4 are needed"
    ):
        import_llmservingsim(tmp_path, RTX, LLAMA_8B, tensor_parallel=4)


def test_attention_without_decodes_alone_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, DENSE)
    (tmp_path / "attention.csv").write_text("prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n16,0,0,0,7.5\n")
    with pytest.raises(InputError, match="no batches of decodes alone"):
        import_llmservingsim(tmp_path, RTX, LLAMA_8B)


@pytest.fixture(scope="module")
def real_folder(recorded_folder: Path) -> Path:
    return recorded_folder / "profile"


def test_the_bundled_curves_keep_a_real_folder_within_a_percent(real_folder: Path) -> None:
    bundled = load_profile("rtx-pro-6000").operators[0]
    tokens = read_points(real_folder / "dense.csv.gz", ("tokens",), only={"layer": "o_proj"})["tokens"]
    layer_s = np.zeros(len(tokens))
    for operator in (*(name for name in DENSE if name not in ("embedding", "final_layernorm")), "layernorm"):
        layer_s += read_points(real_folder / "dense.csv.gz", ("time_us",), only={"layer": operator})["time_us"] * 1e-6
    assert np.abs(bundled.layer.at(tokens) / layer_s - 1).max() <= 0.0101


@pytest.mark.slow
@pytest.mark.xdist_group("imported")
def test_a_real_folder_becomes_the_bundled_profile(imported_profile: dict[str, Any], tmp_path: Path) -> None:
    write_profile(imported_profile, tmp_path)
    imported, bundled = load_profile(str(tmp_path)), load_profile("rtx-pro-6000")
    assert imported.provenance == bundled.provenance
    assert (imported.provenance.kernels, imported.provenance.cuda) == ("vLLM 0.19.0", "13.0")
    assert imported.operators == bundled.operators
    assert imported.errors["linear"]["mape_pct"] <= 10
    assert imported.kernels["fa2"].errors["prefill"]["mape_pct"] <= 8


@pytest.mark.slow
@pytest.mark.xdist_group("imported")
def test_fa2_fits_mixed_and_skewed_batches(imported_profile: dict[str, Any]) -> None:
    fa2 = imported_profile["kernels"]["fa2"]
    errors = fa2["errors"]
    assert {kind: errors[kind]["mape_pct"] < 8 for kind in ("decode", "prefill", "mixed")} == {
        "decode": True,
        "prefill": True,
        "mixed": True,
    }
    for kind, most_pct in (("skew", 2.0), ("skew_64", 2.5), ("skew_all", 5.0)):
        skew = errors[kind]
        assert skew["tile_pct"] < min(most_pct, skew["mean_pct"], skew["alpha_pct"])
    build_attention("fa2", fa2["coefficients"], heads=32, kv_heads=8, head_dim=128, sms=188)
