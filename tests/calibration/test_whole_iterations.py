"""A fit to whole iterations finds what they were made of."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.calibration.whole_iterations import LEAST_ITERATIONS, fit_whole_iterations
from l4sim.cost.curve import OverTokens
from l4sim.cost.whole_iterations import ModelSizes, WholeIterations, WholeIterationsCost
from l4sim.errors import InputError
from l4sim.specs.model import load_model

SIZES = ModelSizes.of(load_model("tiny"))
TRUE = WholeIterations(
    SIZES,
    tensor_parallel=1,
    # Bound by weights up to 256 tokens, by arithmetic beyond.
    tokens=OverTokens((0.0, 256.0, 4096.0), (0.008, 0.009, 0.055)),
    prompt_s=0.002,
    sequence_s=2e-5,
    context_token_s=4e-8,
    prompt_pair_s=3e-10,
)
COST = WholeIterationsCost(tuple(TRUE.tokens.at(range(4097)).tolist()), TRUE)


def batch(random: np.random.Generator) -> Batch:
    contexts = random.integers(10, 8000, size=random.integers(0, 200))
    chunk = (Prefill(int(random.integers(1, 2048)), int(random.integers(0, 4000))),)
    return Batch(contexts, int(contexts.sum()), chunk if not len(contexts) or random.random() < 0.3 else ())


BATCHES = [batch(np.random.default_rng(seed)) for seed in range(400)]
SECONDS = [COST.iteration_s(one) for one in BATCHES]


@pytest.mark.slow
def test_coefficients_come_back() -> None:
    found = fit_whole_iterations(BATCHES, SECONDS, SIZES, 1)
    fitted = found.fitted
    assert fitted.tokens.at([50, 200, 1000]) == pytest.approx(TRUE.tokens.at([50, 200, 1000]), rel=0.02)
    assert fitted.context_token_s == pytest.approx(TRUE.context_token_s, rel=0.01)
    assert fitted.prompt_pair_s == pytest.approx(TRUE.prompt_pair_s, rel=0.05)
    assert found.errors["mape_pct"] < 0.5
    assert abs(found.errors["total_pct"]) < 0.5


def test_noise_does_not_make_predictions_short() -> None:
    noise = np.random.default_rng(1).lognormal(0, 0.5, size=len(SECONDS))
    noisy = np.array(SECONDS) * noise / noise.mean()
    found = fit_whole_iterations(BATCHES, noisy.tolist(), SIZES, 1)
    cost = WholeIterationsCost(tuple(found.fitted.tokens.at(range(4097)).tolist()), found.fitted)
    predicted_s = sum(cost.iteration_s(one) for one in BATCHES)
    assert predicted_s == pytest.approx(sum(SECONDS), rel=0.04)


def test_hiccups_are_told_and_do_not_count() -> None:
    seconds = list(SECONDS)
    for hiccup in range(5, 400, 40):
        seconds[hiccup] *= 50
    found = fit_whole_iterations(BATCHES, seconds, SIZES, 1)
    assert found.fitted.context_token_s == pytest.approx(TRUE.context_token_s, rel=0.01)
    assert 0 < found.errors["flagged"] < 10
    assert found.errors["total_pct"] < -10


def test_too_few_iterations_are_refused() -> None:
    few = LEAST_ITERATIONS - 1
    with pytest.raises(InputError, match=f"{few} iterations, accepted are {LEAST_ITERATIONS} or more"):
        fit_whole_iterations(BATCHES[:few], SECONDS[:few], SIZES, 1)
