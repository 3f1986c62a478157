"""Kinds of MLP, by hand: weights, those that a token is multiplied with, one rank's share."""

from dataclasses import replace

from l4sim.specs.matrix import Matrix
from l4sim.specs.mlp import DenseMLP, Experts, UngatedMLP

EXPERTS = Experts(experts=16, per_token=2, intermediate=40, shared=80)


def test_an_ungated_mlp_has_two_products() -> None:
    assert UngatedMLP(40).matrices(300) == (Matrix("up", 40, 300), Matrix("down", 300, 40))
    assert (UngatedMLP(40).activation_elements, DenseMLP(40).activation_elements) == (80, 120)


def test_a_token_passes_the_router_its_experts_and_the_shared_ones() -> None:
    assert EXPERTS.matrices(300) == (
        Matrix("router", 16, 300),
        Matrix("expert_up", 80, 300, copies=16, used=2),
        Matrix("expert_down", 300, 40, copies=16, used=2),
        Matrix("shared_up", 160, 300),
        Matrix("shared_down", 300, 80),
    )
    assert sum(matrix.parameters for matrix in EXPERTS.matrices(300)) == 300 * (16 + 16 * 3 * 40 + 3 * 80)
    assert sum(matrix.active_parameters for matrix in EXPERTS.matrices(300)) == 300 * (16 + 2 * 3 * 40 + 3 * 80)
    assert EXPERTS.activation_elements == 3 * (2 * 40 + 80)


def test_experts_of_a_latent_size_are_reached_by_projections() -> None:
    latent = replace(EXPERTS, gated=False, latent=100, shared_gate=True)
    assert latent.matrices(300) == (
        Matrix("router", 16, 300),
        Matrix("expert_up", 40, 100, copies=16, used=2),
        Matrix("expert_down", 100, 40, copies=16, used=2),
        Matrix("expert_latent", 100, 300),
        Matrix("expert_latent", 300, 100),
        Matrix("shared_up", 80, 300),
        Matrix("shared_down", 300, 80),
        Matrix("shared_gate", 1, 300),
    )
    assert latent.activation_elements == 2 * (2 * 40 + 80)


def test_a_rank_has_a_slice_of_every_expert() -> None:
    assert EXPERTS.of_rank(4) == replace(EXPERTS, intermediate=10, shared=20)
    assert UngatedMLP(40).of_rank(4) == UngatedMLP(10)
    assert [EXPERTS.unsplittable(4), UngatedMLP(40).unsplittable(4)] == [None, None]
    assert EXPERTS.unsplittable(3) == "does not divide intermediate size 40"
    assert replace(EXPERTS, shared=30).unsplittable(4) == "does not divide intermediate size 30"
