"""SGLang's pools of fixed sizes, in place of vLLM's groups of layers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from l4sim.engine.config import EngineConfig
from l4sim.engine.sglang.memory import one_pool
from l4sim.errors import InputError
from l4sim.specs.kv_groups import KVGroup

CONFIG = EngineConfig(kv_blocks=1900, max_model_len=10_000, max_num_seqs=64, block_tokens=32)


def test_a_model_that_keeps_every_token_has_its_pool() -> None:
    assert one_pool(CONFIG) is CONFIG


def test_windows_have_room_for_four_fifths_of_the_tokens() -> None:
    groups = (KVGroup("full", 32), KVGroup("window", 32, window_tokens=128))
    # 1,900 blocks of 32 tokens of half the layers are 60,800 / 1.8 tokens of all.
    found = one_pool(replace(CONFIG, kv_groups=groups))
    assert (found.kv_blocks, found.block_tokens, found.kv_groups) == (int(60_800 / 1.8) // 16, 16, ())
    assert found.max_num_seqs == 64


def test_states_have_their_share_and_bound_what_runs() -> None:
    groups = (KVGroup("full", 32), KVGroup("state", 32, count=3))
    # 900 of 1,900 blocks are for states, three for each request; 1,000 are left for tokens.
    found = one_pool(replace(CONFIG, kv_groups=groups, max_num_seqs=1024))
    assert (found.max_num_seqs, found.kv_blocks) == (300, 2000)
    assert one_pool(replace(CONFIG, kv_groups=groups)).max_num_seqs == 64
    with pytest.raises(InputError, match="4 KV blocks have no room for a request's states"):
        one_pool(replace(CONFIG, kv_groups=groups, kv_blocks=4))
