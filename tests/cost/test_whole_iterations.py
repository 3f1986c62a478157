"""Costs of whole iterations: the coefficients, added up; and whose they are."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.cost.curve import OverTokens
from l4sim.cost.whole_iterations import ModelSizes, WholeIterations, pairs, whole_iterations_cost
from l4sim.errors import InputError
from l4sim.specs.model import load_model

TINY = load_model("tiny")
FITTED = WholeIterations(
    ModelSizes.of(TINY),
    tensor_parallel=1,
    tokens=OverTokens((0.0, 100.0), (0.5, 1.5)),
    prompt_s=0.25,
    sequence_s=0.125,
    context_token_s=0.01,
    prompt_pair_s=0.001,
)
COST = whole_iterations_cost((FITTED,), TINY, tensor_parallel=1, most_tokens=64, where="profile mine")


def decodes(*contexts: int) -> Batch:
    return Batch(np.array(contexts), sum(contexts))


def test_decodes_cost_tokens_sequences_and_contexts() -> None:
    assert COST.iteration_s(decodes(10, 20)) == pytest.approx(0.52 + 2 * 0.125 + 30 * 0.01)


def test_a_prompts_chunk_costs_its_pairs_and_samples_only_at_its_end() -> None:
    begun = Batch(np.array([], dtype=np.int64), 0, (Prefill(4, 10, samples=False),))
    ended = Batch(np.array([], dtype=np.int64), 0, (Prefill(4, 10),))
    assert pairs(begun.prefills[0]) == 11 + 12 + 13 + 14
    assert COST.iteration_s(begun) == pytest.approx(0.54 + 0.25 + 0.001 * 50)
    assert COST.iteration_s(ended) == pytest.approx(COST.iteration_s(begun) + 0.125)


def test_a_segment_ends_as_its_last_iteration_alone() -> None:
    first_s, last_s = COST.decode_segment_s(decodes(10, 20), 5)
    assert (first_s, last_s) == pytest.approx((COST.iteration_s(decodes(10, 20)), COST.iteration_s(decodes(14, 24))))


@pytest.mark.parametrize(("model", "tensor_parallel"), [("llama-3.1-8b", 1), ("tiny", 2)])
def test_another_model_or_parallelism_is_refused(model: str, tensor_parallel: int) -> None:
    with pytest.raises(InputError, match="profile mine: fitted to recorded iterations of tiny at tensor parallel 1"):
        whole_iterations_cost(
            (FITTED,), load_model(model), tensor_parallel=tensor_parallel, most_tokens=64, where="profile mine"
        )
