"""Models whose layers are of several groups: our engine and vLLM's scheduler, iteration by iteration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

vllm = pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")
if not vllm.__version__.startswith("0.32"):
    pytest.skip("groups are as in vLLM 0.32", allow_module_level=True)

from vllm.v1.core.kv_cache_utils import get_kv_cache_capacity, get_kv_cache_configs

from l4sim.specs.attention import GroupedQuery, VariedQuery
from l4sim.specs.kv_groups import KVGroup, kv_layout
from l4sim.specs.layers import LayerGroup
from l4sim.specs.mlp import DenseMLP
from l4sim.specs.recurrent import GatedDeltaNet
from tests_vllm.cases import SETTINGS, Case, small_cases
from tests_vllm.real_scheduler import kv_cache_config
from tests_vllm.test_schedule import check

CASES = int(os.environ.get("CASES", "25"))
SEED = os.environ.get("SEED", "0")

MODELS = {
    "gpt-oss: windows and full": [("window", 1, 1), ("full", 1, 1)],
    "gemma-3: five windows to one full": [("window", 1, 5), ("full", 1, 1)],
    "gemma-4: full layers of other heads": [("window", 1, 2), ("full", 2, 1)],
    "mimo: two windows and full": [("full", 1, 1), ("window", 1, 2), ("window", 2, 1)],
    "mistral: windows alone": [("window", 1, 1)],
    "llama-4: chunks and full": [("chunk", 1, 3), ("full", 1, 1)],
    "qwen3-next: states and full": [("state", 1, 3), ("full", 1, 1)],
    "states alone": [("state", 1, 2)],
    "nemotron: states that are exported": [("exported", 1, 4), ("full", 1, 1)],
}


def grouped(case: Case, model: str, random: Random) -> Case:
    """The same case on an instance of such a model."""
    config = case.config
    size = config.block_tokens
    groups = []
    for kind, stride, count in MODELS[model]:
        tokens = size * stride
        exports = kind == "exported" and config.prefix_caching
        kind = "state" if kind == "exported" else kind
        if kind == "state" and not config.prefix_caching:
            tokens = 5000 // size * size
        window = {"window": random.randint(2, 40), "chunk": size * random.randint(1, 8)}.get(kind, 0)
        groups.append(KVGroup(kind, tokens, window, count, exports))
    tables = sum(group.count for group in groups)
    return replace(case, config=replace(config, kv_groups=tuple(groups), kv_blocks=config.kv_blocks * tables))


def cases(model: str, setting: tuple[str, ...], count: int) -> Iterator[Case]:
    random = Random(repr((model, setting, SEED)))
    for case in small_cases(setting, (model, SEED), count):
        yield grouped(case, model, random)


@pytest.mark.parametrize("setting", SETTINGS, ids="-".join)
@pytest.mark.parametrize("model", MODELS)
def test_the_same_work_blocks_and_hits(model: str, setting: tuple[str, ...]) -> None:
    for case in cases(model, setting, max(CASES // 25, 1)):
        check(case)


FULL, SHORT = GroupedQuery(32, 8, 128), GroupedQuery(32, 4, 128)
WINDOW = VariedQuery(32, 8, 128, 128, window_tokens=128)
CHUNK = VariedQuery(32, 8, 128, 128, window_tokens=8192, chunked=True)
ODD = VariedQuery(24, 3, 128, 128, window_tokens=128)
NET = GatedDeltaNet(16, 32, 128, 128, 4, "float32")
SHAPES = {
    "gpt-oss": ((18, WINDOW), (18, FULL)),
    "gemma-3": ((52, WINDOW), (10, FULL)),
    "gemma-4": ((25, WINDOW), (5, SHORT)),
    "mimo": ((9, SHORT), (39, WINDOW)),
    "near": ((12, WINDOW), (13, FULL)),
    "padded": ((3, ODD), (3, FULL)),
    "mistral": ((32, WINDOW),),
    "llama-4": ((36, CHUNK), (12, FULL)),
    "qwen3.5": ((30, NET), (10, GroupedQuery(16, 2, 256))),
    "full of two sizes": ((20, FULL), (10, SHORT)),
    "three kinds": ((10, FULL), (20, WINDOW), (30, CHUNK)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_groups_of_the_same_bytes(shape: str) -> None:
    layers = [LayerGroup(count, attention, DenseMLP(64)) for count, attention in SHAPES[shape]]
    ours = kv_layout(shape, layers, ranks=1, block_tokens=16, max_model_len=32768, prefix_caching=True)
    config, specs = kv_cache_config(layers, ours)
    blocks = 5000
    theirs = get_kv_cache_configs(config, [specs], [blocks * ours.block_bytes])[0]
    assert theirs.num_blocks == blocks
    sizes = [group.block_tokens for group in ours.groups for _ in range(group.count)] or [ours.block_tokens]
    assert sizes == [group.kv_cache_spec.block_size for group in theirs.kv_cache_groups]
    held = ours.most_blocks(32768, config.max_in_flight_tokens)
    assert get_kv_cache_capacity(config, theirs)[1] == blocks / held
