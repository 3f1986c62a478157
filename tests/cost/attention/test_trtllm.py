"""trtllm-gen: decodes and prompts are launches of their own, each split as FA3 does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from l4sim.batch import Batch
from l4sim.cost.model import AttentionModel

Build = Callable[..., AttentionModel]
MakeBatch = Callable[..., Batch]


def test_a_mixed_batch_takes_what_its_parts_take(attention: Build, batch: MakeBatch) -> None:
    model, fa3 = attention("trtllm-gen"), attention("fa3")
    contexts, prompts = [1000, 30000, 512], [(2048, 1024)]
    parts_s = fa3.attention_s(batch(contexts)) + fa3.attention_s(batch([], prompts))
    assert model.attention_s(batch(contexts, prompts)) == pytest.approx(parts_s)
    assert model.attention_s(batch(contexts)) == fa3.attention_s(batch(contexts))
