"""What vLLM gives an engine that is told nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from l4sim.engine.rules import ENGINES
from l4sim.engine.vllm.versions import VERSIONS
from l4sim.specs.engine_defaults import ALL_DEFAULTS, ENGINE_DEFAULTS, NEWEST, defaults_of
from l4sim.specs.gpu import GPUS


@pytest.mark.parametrize(
    ("rules", "gpu", "expected"),
    [
        ("vllm-0.19", "h100-sxm", (1024, 8192)),
        ("vllm-0.32", "h100-sxm", (1024, 8192)),
        ("sglang-0.5", "h100-sxm", (2048, 8192)),
        ("vllm-0.19", "a100-80gb-sxm", (256, 2048)),
        ("vllm-0.32", "a100-80gb-sxm", (256, 2048)),
        ("vllm-0.32", "rtx-4090", (256, 2048)),
    ],
)
def test_batch_limits_follow_the_version_and_the_gpu_s_memory(rules: str, gpu: str, expected: tuple[int, int]) -> None:
    assert ALL_DEFAULTS[rules].batch(GPUS[gpu], None, None) == expected


@pytest.mark.parametrize(("rules", "tokens"), [("vllm-0.19", 8192), ("vllm-0.32", 16384)])
def test_the_largest_gpus_take_more_tokens_since_0_32(rules: str, tokens: int) -> None:
    gpu = replace(GPUS["h200-sxm"], memory_bytes=178 << 30)
    assert ALL_DEFAULTS[rules].batch(gpu, None, None) == (1024, tokens)


def test_a_limit_that_is_given_bounds_the_other_one() -> None:
    defaults, gpu = ENGINE_DEFAULTS[NEWEST], GPUS["h100-sxm"]
    # Every running request must get a token.
    assert defaults.batch(gpu, None, 512) == (512, 512)
    assert defaults.batch(gpu, 10_000, None) == (10_000, 10_000)
    assert defaults.batch(gpu, 64, 300) == (64, 300)


def test_every_version_with_rules_has_defaults_and_the_newest_are_everybody_else_s() -> None:
    assert list(ENGINE_DEFAULTS) == list(VERSIONS)
    assert list(ALL_DEFAULTS) == list(ENGINES)
    assert defaults_of("somebody-else-s") == ENGINE_DEFAULTS["vllm-0.32"]
