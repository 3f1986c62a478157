"""Models whose layers are of several groups: our engine and vLLM's scheduler, iteration by iteration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

vllm = pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")

from l4sim.engine.groups import KVGroup
from tests_vllm.cases import SETTINGS, Case, small_cases
from tests_vllm.test_schedule import check

if not vllm.__version__.startswith("0.32"):
    pytest.skip("groups are as in vLLM 0.32", allow_module_level=True)

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
}


def grouped(case: Case, model: str, random: Random) -> Case:
    """The same case on an instance of such a model."""
    config = case.config
    size = config.block_tokens
    groups = []
    for kind, stride, count in MODELS[model]:
        tokens = size * stride
        if kind == "state" and not config.prefix_caching:
            tokens = 5000 // size * size
        window = {"window": random.randint(2, 40), "chunk": size * random.randint(1, 8)}.get(kind, 0)
        groups.append(KVGroup(kind, tokens, window, count))
    tables = sum(group.count for group in groups)
    return replace(case, config=replace(config, kv_groups=tuple(groups), kv_blocks=config.kv_blocks * tables))


def cases(model: str, setting: tuple[str, ...], count: int) -> Iterator[Case]:
    random = Random(repr((model, setting, SEED)))
    for case in small_cases(setting, (model, SEED), count):
        yield grouped(case, model, random)


@pytest.mark.parametrize("setting", SETTINGS, ids="-".join)
@pytest.mark.parametrize("model", MODELS)
def test_groups_of_layers(model: str, setting: tuple[str, ...]) -> None:
    preemptions = [check(case) for case in cases(model, setting, CASES // 4)]
