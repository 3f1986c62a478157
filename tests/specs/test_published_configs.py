"""Current models' own files: all but a few are read, and hold as many parameters as their names say."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import pytest

from l4sim.errors import InputError
from l4sim.specs.model import Model, load_model

# A file with a recipe for every expert of every layer takes a tenth of a second.
pytestmark = pytest.mark.slow

# What differs from the number in the name by more than 5 %, and why.
EXCEPTIONS = {
    "Qwen__Qwen3-VL-2B-Instruct": "0.4 billion in the vision tower are left out",
    "meta-models__Muse-Glimmer-30B": "1.9 billion in the vision tower are left out",
    "XiaomiMiMo__MiMo-7B-Base": "7.0 billion without the embedding",
    "nvidia__NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": "31.6 billion by its card",
    "nvidia__NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4": "31.6 billion by its card",
    "nvidia__NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4": "as Nemotron 3 Nano",
    "meta-llama__Llama-4-Maverick-17B-128E-Instruct": "17 billion are active",
    "meta-llama__Llama-4-Scout-17B-16E-Instruct": "17 billion are active",
}
REFUSED = {"deepseek-ai__DeepSeek-V4.1-Flash": "Engram"}
_UNITS = {"B": 1e9, "T": 1e12}


@lru_cache
def _read(folder: Path) -> Model | str:
    try:
        return load_model(str(folder))
    except InputError as refusal:
        return str(refusal)


@pytest.fixture(scope="module")
def models(shared: Path) -> dict[str, Model | str]:
    return {path.parent.name: _read(path.parent) for path in sorted((shared / "models").glob("*/config.json"))}


def test_all_are_read_but_those_that_are_refused_by_name(models: dict[str, Model | str]) -> None:
    assert len(models) >= 95
    refused = {name: model for name, model in models.items() if isinstance(model, str)}
    assert refused.keys() == REFUSED.keys()
    assert all(REFUSED[name] in reason for name, reason in refused.items())


def test_parameters_are_near_the_number_in_the_name(models: dict[str, Model | str]) -> None:
    off = []
    for name, model in models.items():
        number = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)([BT])(?![a-z])", name.replace("-", " "))
        if number is None or isinstance(model, str) or name in EXCEPTIONS:
            continue
        ratio = model.parameters / (float(number[1]) * _UNITS[number[2]])
        if not 0.95 <= ratio <= 1.05:
            off.append(f"{name}: {ratio:.3f}")
    assert off == []


def test_a_file_beside_tells_the_quantisation(models: dict[str, Model | str]) -> None:
    model = models["nvidia__Llama-3.1-70B-Instruct-FP8"]
    assert isinstance(model, Model)
    # All but embedding and head, which are 2 x 128,256 x 8,192 in bf16; KV in FP8.
    ends = 2 * 128_256 * 8192
    assert model.weight_bytes_by_dtype == {"bfloat16": 2 * ends, "fp8": model.parameters - ends}
    assert model.kv_bytes_per_token == 80 * 2 * 8 * 128


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        # Of the safetensors on Hugging Face, by their index files or the models' cards.
        ("openai__gpt-oss-120b", 60.8),
        ("openai__gpt-oss-20b", 12.8),
        ("Qwen__Qwen3-235B-A22B-FP8", 220),
    ],
)
def test_weights_are_as_large_as_the_published_files(models: dict[str, Model | str], name: str, gib: float) -> None:
    model = models[name]
    assert isinstance(model, Model)
    assert model.weight_bytes / 2**30 == pytest.approx(gib, rel=0.01)
