"""Which engine is simulated for a recorded one: its GPU, its profile, its model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from l4sim.errors import InputError
from l4sim.recordings.instance import find_gpu
from l4sim.recordings.replay import replayable, validate_vllm

from .conftest import META, Record


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb-sxm"),
        ("NVIDIA H20", "h20-141gb"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", None),
        ("NVIDIA H100 PCIe", None),
        ("AMD Instinct MI300X", None),
    ],
)
def test_gpus_are_known_by_cudas_names(device: str, name: str | None) -> None:
    gpu = find_gpu(device)
    assert (None if gpu is None else gpu.name) == name


def without_profile(folder: Path) -> Path:
    shutil.rmtree(folder / "profile")
    return folder


def test_a_given_profile_stands_in_for_the_folders_own(record: Record) -> None:
    folder = without_profile(record())
    with pytest.raises(InputError, match="no profile/ to import; name a profile by --profile"):
        validate_vllm(folder)
    assert validate_vllm(folder, profile="h200-sxm").figures[2].predicted < 0.01


def test_an_unknown_gpu_is_named_with_those_that_are_known(record: Record) -> None:
    folder = without_profile(record(meta=META | {"hardware": {"device_name": "NVIDIA L4"}}))
    (folder / "profile").mkdir()
    with pytest.raises(InputError, match="GPU NVIDIA L4 is not bundled; name the nearest by --gpu: h200-sxm"):
        validate_vllm(folder)


def test_a_model_that_is_not_bundled_comes_as_a_config(record: Record, tmp_path: Path) -> None:
    folder = record(meta=META | {"model": "Qwen/Qwen3-8B"})
    with pytest.raises(InputError, match=r"model Qwen/Qwen3-8B is not bundled: add its config\.json to the folder"):
        validate_vllm(folder)
    config = {
        "model_type": "qwen3",
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
    }
    (folder / "config.json").write_text(json.dumps(config))
    assert validate_vllm(folder).setup.model.layers == 36


@pytest.mark.parametrize(
    "meta",
    [
        {"resolved_config": {"kv_transfer_config": {"kv_connector": "OffloadingConnector"}}},
        {"resolved_config": {"cache_config": {"kv_offloading_size": 8.0}}},
        {"kv_events_config": {"enable_kv_cache_events": True}},
    ],
)
def test_what_an_engine_did_with_its_kv_besides_is_said_to_take_no_time(record: Record, meta: dict[str, Any]) -> None:
    (said,) = replayable(record(meta=META | meta)).assumptions
    assert said.startswith("recorded, and not modelled, so that the engine may be slower: kv_")


def test_nothing_is_said_of_what_an_engine_did_not_do(record: Record) -> None:
    nothing = {"kv_transfer_config": None, "cache_config": {"kv_offloading_size": None}}
    assert replayable(record(meta=META | {"resolved_config": nothing})).assumptions == ()
