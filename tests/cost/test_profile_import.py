"""LLMServingSim folders: operators add up as vLLM runs them, and nothing in a folder is passed over."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from l4sim.cost.batch import Batch
from l4sim.cost.build import build_cost
from l4sim.cost.points import read_points
from l4sim.cost.profile import Profile, load_profile
from l4sim.cost.profile_fit import write_profile
from l4sim.cost.profile_import import import_profile
from l4sim.errors import InputError
from l4sim.specs.gpu import GPUS
from l4sim.specs.model import load_model

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


def load(folder: Path, out: Path) -> Profile:
    write_profile(import_profile(folder, RTX, LLAMA_8B), out)
    return load_profile(str(out))


def test_a_layer_has_two_norms_and_each_other_operator_once(tmp_path: Path) -> None:
    operators = load(write_folder(tmp_path, DENSE), tmp_path / "out").operators[0]
    assert float(operators.layer.at(1)) == pytest.approx((36 + 26 + 159 + 86 + 3 + 3 + 2 * 2) * 1e-6)
    assert float(operators.once.at(2048)) == pytest.approx(28e-6)
    assert float(operators.sampled.at(256)) == pytest.approx(990e-6)


def test_qwen3s_norms_of_queries_and_keys_count_where_they_are(tmp_path: Path) -> None:
    operators = load(write_folder(tmp_path, DENSE | {"qk_norm": (5, 50)}), tmp_path / "out").operators[0]
    assert float(operators.layer.at(1)) == pytest.approx((317 + 5) * 1e-6)


def test_the_measured_model_uses_its_own_operators_and_others_the_fit(
    tmp_path: Path, batch: Callable[..., Batch]
) -> None:
    profile = load(write_folder(tmp_path, DENSE), tmp_path / "out")
    cost = build_cost(profile, LLAMA_8B, max_num_seqs=8)
    attention_s = build_cost(profile, LLAMA_8B).attention.attention_s(batch([1]))  # type: ignore[attr-defined]
    expected_s = 32 * (317e-6 + attention_s) + 5e-6 + 725e-6 + 1e-3
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
        import_profile(write_folder(tmp_path, dense), RTX, LLAMA_8B)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither dense\.csv nor dense\.csv\.gz"):
        import_profile(tmp_path, RTX, LLAMA_8B)


def test_provenance_comes_from_meta_yaml(tmp_path: Path) -> None:
    (tmp_path / "meta.yaml").write_text(
        "vllm_version: 0.19.0\ncuda_version: '13.0'\nengine_effective:\n  gpu: not this one\ngpu: RTX\n"
    )
    provenance = load(write_folder(tmp_path, DENSE), tmp_path / "out").provenance
    assert (provenance.kernels, provenance.cuda) == ("vLLM 0.19.0", "13.0")
    assert provenance.source.endswith("on RTX")
    assert provenance.driver is None


def test_a_real_folder_is_kept_within_a_percent_and_fits_unseen_shapes(measurements: Path, tmp_path: Path) -> None:
    folder = measurements.parent / "validation" / "vllm0.19_rtxpro6000_llama3.1-8b" / "profile"
    profile = load(folder, tmp_path)
    tokens = read_points(folder / "dense.csv.gz", ("tokens",), only={"layer": "o_proj"})["tokens"]
    layer_s = np.zeros(len(tokens))
    for operator in (*(name for name in DENSE if name not in ("embedding", "final_layernorm")), "layernorm"):
        layer_s += read_points(folder / "dense.csv.gz", ("time_us",), only={"layer": operator})["time_us"] * 1e-6
    assert np.abs(profile.operators[0].layer.at(tokens) / layer_s - 1).max() <= 0.0101
    assert profile.errors["linear"]["mape_pct"] <= 10
