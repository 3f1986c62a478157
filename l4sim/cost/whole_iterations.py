"""Seconds of whole iterations, as they were fitted to a recorded engine's: a few coefficients with a meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from l4sim.batch import Batch, Prefill
from l4sim.cost.curve import OverTokens
from l4sim.errors import InputError
from l4sim.json_files import Count, NonNegative, Text
from l4sim.specs.model import Model

KERNEL = "whole-iterations"
"""What stands where profiles name their attention kernel: nothing is known of attention alone."""


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """What tells one model from another where only its whole iterations are known."""

    model: Text
    layers: Count
    hidden: Count
    vocab: Count
    weight_bytes: Count
    kv_bytes_per_token: Count

    @classmethod
    def of(cls, model: Model) -> Self:
        """Those of a model."""
        return cls(
            model.name, model.layers, model.hidden, model.vocab, model.weight_bytes, int(model.kv_bytes_per_token)
        )

    def alike(self, model: Model) -> bool:
        """Whether a model has these sizes, whatever it is called."""
        other = ModelSizes.of(model)
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__ if name != "model")


@dataclass(frozen=True, slots=True)
class WholeIterations:
    """What an engine's iterations take with one model at one tensor-parallel size."""

    sizes: ModelSizes
    tensor_parallel: Count
    tokens: OverTokens
    """Seconds over the tokens that are computed, the host's part of any iteration included."""
    prompt_s: NonNegative
    """Besides, in an iteration with prompts."""
    sequence_s: NonNegative
    """For every sequence that samples a token."""
    context_token_s: NonNegative
    """For every token that a decode attends to."""
    prompt_pair_s: NonNegative
    """For every pair of a prompt's token and a token that it attends to."""


@dataclass(frozen=True, slots=True)
class WholeIterationsCost:
    """A ``CostModel`` of them."""

    tokens_s: tuple[float, ...]
    """By tokens in the batch: the curve, looked up."""
    fitted: WholeIterations

    def iteration_s(self, batch: Batch) -> float:
        """Seconds of one iteration."""
        fitted, prefills = self.fitted, batch.prefills
        seconds = self.tokens_s[batch.tokens] + fitted.sequence_s * batch.sampled
        seconds += fitted.context_token_s * batch.decode_context_sum
        if prefills:
            seconds += fitted.prompt_s + fitted.prompt_pair_s * sum([pairs(chunk) for chunk in prefills])
        return seconds

    def decode_segment_s(self, batch: Batch, iterations: int) -> tuple[float, float]:
        """Seconds of the first and the last of ``iterations`` decode iterations in a row."""
        first_s = self.iteration_s(batch)
        rows = len(batch.decode_context_tokens)
        return first_s, first_s + self.fitted.context_token_s * rows * (iterations - 1)


def pairs(chunk: Prefill) -> int:
    """Query-key pairs that a prompt's chunk attends to: what is cached, and the chunk before each token."""
    tokens = chunk.chunk_tokens
    return tokens * chunk.cached_tokens + tokens * (tokens + 1) // 2


def whole_iterations_cost(
    fitted: tuple[WholeIterations, ...], model: Model, *, tensor_parallel: int, most_tokens: int, where: str
) -> WholeIterationsCost:
    """The cost model of a model whose iterations were fitted.

    Raises:
        InputError: they are another model's, or of another tensor-parallel size.
    """
    own = [one for one in fitted if one.tensor_parallel == tensor_parallel and one.sizes.alike(model)]
    if not own:
        known = ", ".join(f"{one.sizes.model} at tensor parallel {one.tensor_parallel}" for one in fitted)
        raise InputError(
            f"{where}: fitted to recorded iterations of {known} alone: it knows nothing of {model.name} at tensor "
            f"parallel {tensor_parallel}"
        )
    return WholeIterationsCost(tuple(own[0].tokens.at(range(most_tokens + 1)).tolist()), own[0])
