"""Kinds of linear attention, by hand: weights, the state that a sequence keeps, one rank's share."""

from dataclasses import replace

from l4sim.specs.dtypes import Dtypes
from l4sim.specs.matrix import Kept, Matrix
from l4sim.specs.recurrent import GatedDeltaNet, KimiDelta, Mamba

MAMBA = Mamba(heads=8, head_dim=16, groups=2, state_dim=32, conv_width=4)
DELTA = GatedDeltaNet(key_heads=2, value_heads=4, key_dim=16, value_dim=24, conv_width=4, state_dtype="float32")
KIMI = KimiDelta(heads=4, head_dim=16, conv_width=4)


def test_mamba_by_hand() -> None:
    # Gate and inputs of 8 x 16 columns, B and C of 2 x 32 each, a step size per head.
    assert MAMBA.matrices(300) == (
        Matrix("recurrent_in", 2 * 128 + 2 * 64 + 8, 300),
        Matrix("conv", 128 + 2 * 64, 4),
        Matrix("recurrent_out", 300, 128),
    )
    assert MAMBA.kept(Dtypes()) == (Kept(state_bytes=3 * 256 * 2 + 8 * 16 * 32 * 4),)
    assert replace(MAMBA, state_dtype="bfloat16").kept(Dtypes()) == (Kept(state_bytes=3 * 256 * 2 + 8 * 16 * 32 * 2),)


def test_a_gated_delta_net_by_hand() -> None:
    # Queries and keys of 2 x 16 columns, values of 4 x 24.
    assert DELTA.matrices(300) == (
        Matrix("recurrent_in", 2 * 32 + 96, 300),
        Matrix("recurrent_gate", 96, 300),
        Matrix("recurrent_heads", 8, 300),
        Matrix("conv", 2 * 32 + 96, 4),
        Matrix("recurrent_out", 300, 96),
    )
    assert DELTA.kept(Dtypes()) == (Kept(state_bytes=3 * 160 * 2 + 4 * 16 * 24 * 4),)


def test_kimi_delta_attention_by_hand() -> None:
    assert KIMI.matrices(300) == (
        Matrix("recurrent_in", 3 * 64, 300),
        Matrix("recurrent_decay", 16, 300),
        Matrix("recurrent_decay", 64, 16),
        Matrix("recurrent_heads", 4, 300),
        Matrix("recurrent_gate", 16, 300),
        Matrix("recurrent_gate", 64, 16),
        Matrix("conv", 3 * 64, 4),
        Matrix("recurrent_out", 300, 64),
    )
    gates = [matrix for matrix in replace(KIMI, full_rank_gate=True).matrices(300) if matrix.part == "recurrent_gate"]
    assert gates == [Matrix("recurrent_gate", 64, 300)]
    assert KIMI.kept(Dtypes()) == (Kept(state_bytes=3 * 3 * 64 * 2 + 4 * 16 * 16 * 4),)


def test_a_rank_has_its_share_of_the_heads() -> None:
    assert MAMBA.of_rank(4) == replace(MAMBA, heads=2, groups=1)
    assert DELTA.of_rank(2) == replace(DELTA, key_heads=1, value_heads=2)
    assert KIMI.of_rank(2) == replace(KIMI, heads=2)
    assert [kind.unsplittable(2) for kind in (MAMBA, DELTA, KIMI)] == [None] * 3
    assert MAMBA.unsplittable(3) == "does not divide 8 Mamba heads"
    assert DELTA.unsplittable(4) == "does not divide 2 key heads and 4 value heads"
    assert KIMI.unsplittable(3) == "does not divide 4 heads"
