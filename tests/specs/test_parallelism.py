"""How GPUs share a model: what divides, and what each of them holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from l4sim.errors import InputError
from l4sim.specs.mlp import Experts
from l4sim.specs.model import dense_model
from l4sim.specs.parallelism import Parallelism

DENSE = dense_model(
    "dense", layers=2, hidden=512, intermediate=1024, heads=8, kv_heads=2, head_dim=64, vocab=1000, max_model_len=4096
)
MIXED = replace(
    DENSE, name="mixed", groups=tuple(replace(group, mlp=Experts(16, 2, 256, shared=512)) for group in DENSE.groups)
)


def test_experts_are_sliced_by_the_ranks_that_do_not_hold_others() -> None:
    split = Parallelism(tensor=2, attention_dp=4, expert=4)
    assert (split.gpus, split.moe_tensor) == (8, 2)
    split.check(MIXED)


def test_a_rank_holds_its_share_of_attention_and_of_all_experts() -> None:
    one, split = Parallelism(), Parallelism(tensor=2, attention_dp=4, expert=8)
    experts = 2 * 2 * 16 * 3 * 256 * 512
    assert one.rank_weight_bytes(MIXED) == MIXED.weight_bytes
    assert split.rank_weight_bytes(MIXED) == (MIXED.weight_bytes - experts) / 2 + experts / 8
    assert Parallelism(4).rank_weight_bytes(DENSE) == DENSE.weight_bytes / 4


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"tensor": 0}, "tensor parallel is 0, accepted is a whole number >= 1"),
        ({"attention_dp": 0}, "attention data parallel is 0"),
        ({"tensor": 4, "expert": 3}, r"expert parallel 3 does not divide 4 GPUs \(tensor parallel 4 x attention"),
    ],
)
def test_what_cannot_be_is_refused(split: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Parallelism(**split)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (Parallelism(3), "mixed: tensor parallel 3 does not divide 8 heads"),
        (Parallelism(attention_dp=32, expert=32), "mixed: expert parallel 32 does not divide 16 experts"),
        (Parallelism(attention_dp=3), "mixed: tensor parallel 3 does not divide intermediate size 256"),
    ],
)
def test_a_model_that_does_not_divide_is_refused(split: Parallelism, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split.check(MIXED)


def test_dense_models_have_no_experts_to_spread() -> None:
    with pytest.raises(InputError, match="dense: expert parallel 2, and it has no experts"):
        Parallelism(2, expert=2).check(DENSE)
