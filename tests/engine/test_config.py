"""Options of an engine instance: vLLM's defaults, and refusals that name the option."""

from __future__ import annotations

from typing import Any

import pytest

from l4sim.engine.config import EngineConfig
from l4sim.errors import InputError

NEEDED: dict[str, Any] = {"kv_blocks": 100, "max_model_len": 4096}


def test_defaults_are_those_of_vllm() -> None:
    config = EngineConfig(**NEEDED)
    assert (config.max_num_seqs, config.max_num_batched_tokens, config.block_tokens) == (256, 8192, 16)
    assert config.prefix_caching
    assert config.reserve_full_prompt
    assert config.async_scheduling


@pytest.mark.parametrize("option", ["kv_blocks", "max_model_len", "max_num_seqs", "block_tokens"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True, None])
def test_a_count_that_is_not_a_whole_positive_number_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"{option} must be a whole number of at least 1, not {value!r}"):
        EngineConfig(**{**NEEDED, option: value})


@pytest.mark.parametrize("option", ["prefix_caching", "reserve_full_prompt", "async_scheduling"])
def test_a_switch_that_is_neither_on_nor_off_is_refused_by_name(option: str) -> None:
    with pytest.raises(InputError, match=f"{option} must be True or False, not 1"):
        EngineConfig(**{**NEEDED, option: 1})


def test_the_token_budget_must_give_every_running_request_a_token() -> None:
    EngineConfig(**NEEDED, max_num_seqs=64, max_num_batched_tokens=64)
    with pytest.raises(InputError, match=r"max_num_batched_tokens \(63\) must be at least max_num_seqs \(64\)"):
        EngineConfig(**NEEDED, max_num_seqs=64, max_num_batched_tokens=63)
