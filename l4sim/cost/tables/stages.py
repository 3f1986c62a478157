"""Seconds of an iteration's stages but attention, from a profile's tables, and whether each part was measured."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from l4sim.cost.elementwise import embedding_s, layer_elementwise_s
from l4sim.cost.profile import Profile
from l4sim.cost.tables.experts import EXPERTS, Mixture, mixtures_of
from l4sim.cost.tables.products import GEMM, Products, Seconds, products_of
from l4sim.cost.tables.table import FloatArray, IntArray
from l4sim.errors import InputError
from l4sim.specs.layers import LayerGroup
from l4sim.specs.mlp import Experts
from l4sim.specs.model import Model
from l4sim.specs.parallelism import Parallelism, is_expert

PRODUCTS, MIXTURES, HEAD = "matrix products", "experts", "lm_head"
"""What parts are called where a run says what it rests on."""


@dataclass(frozen=True, slots=True)
class Stages:
    """What a profile's tables say of one model on one rank of an instance."""

    profile: Profile
    model: Model
    parallelism: Parallelism
    expert_load: str
    """The experts' table's ``distribution``."""

    @property
    def _products(self) -> Products:
        return products_of(self.profile.tables[GEMM], self.profile.gpu)

    def layer(self, group: LayerGroup, covers: Collection[str], tokens: IntArray) -> Iterator[tuple[str, Seconds]]:
        """The parts of one layer by the rank's tokens, attention and what it ``covers`` left out.

        Raises:
            InputError: experts in a format that nothing stands for.
        """
        rank = self._rank(group)
        for matrix in rank.matrices(self.model.hidden):
            if matrix.part not in covers and not is_expert(matrix):
                yield PRODUCTS, self._products.seconds(group.dtypes.of(matrix.part), matrix.n, matrix.k, tokens)
        if isinstance(group.mlp, Experts):
            yield MIXTURES, self._experts(group, group.mlp, tokens)
        yield "element-wise kernels", self._elementwise(rank, tokens)

    def _rank(self, group: LayerGroup) -> LayerGroup:
        return group.of_rank(self.parallelism.tensor)

    def _experts(self, group: LayerGroup, experts: Experts, tokens: IntArray) -> Seconds:
        """Of the tokens of all ranks, each having as many as the one that has most."""
        if EXPERTS not in self.profile.tables:
            raise InputError(f"profile {self.profile.name} has no seconds of experts")
        mixture = Mixture(
            self.model.hidden if experts.latent is None else experts.latent,
            experts.intermediate,
            experts.per_token,
            experts.experts,
            self.parallelism.moe_tensor,
            self.parallelism.expert,
            self.expert_load,
        )
        mixtures = mixtures_of(self.profile.tables[EXPERTS], self.profile.gpu)
        return mixtures.seconds(group.dtypes.of("expert_up"), mixture, tokens * self.parallelism.attention_dp)

    def _elementwise(self, rank: LayerGroup, tokens: IntArray) -> Seconds:
        profile = self.profile
        seconds = layer_elementwise_s(self.model.hidden, rank, profile.gpu, profile.elementwise, tokens)
        return Seconds(seconds, bool(profile.errors["elementwise"]))

    def embedding(self, tokens: IntArray) -> FloatArray:
        """The embedding and the final norm by tokens."""
        return embedding_s(self.model, self.profile.gpu, self.profile.elementwise, tokens)

    def head(self, sequences: IntArray) -> Seconds:
        """The language model's head by sampled sequences."""
        model = self.model
        columns = -(-model.vocab // self.parallelism.tensor)
        return self._products.seconds(model.head_dtype or model.dtype, columns, model.hidden, sequences)

    def layer_s(self, group: LayerGroup, covers: Collection[str], tokens: IntArray) -> FloatArray:
        """Seconds of one layer by the rank's tokens, of their shape."""
        return np.asarray(np.sum([each.seconds for _, each in self.layer(group, covers, tokens)], axis=0))
