"""Presets: the fit that they are published with comes out again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from l4sim.errors import InputError
from l4sim.workload.synth.joint import Coupled
from l4sim.workload.synth.lengths import Lognormal
from l4sim.workload.synth.presets import PRESETS, preset

N = 40_000
SIGMAS = 5


@pytest.mark.parametrize(
    ("name", "prompt_fit", "output_fit"),
    [
        ("chat", (8.74, 1.20), (5.34, 1.36)),
        ("agentic-coding", (11.49, 0.67), (5.56, 0.89)),
        ("long-reasoning", (5.23, 1.84), (6.78, 0.97)),
    ],
)
def test_generated_lengths_have_the_published_mu_and_sigma(
    name: str, prompt_fit: tuple[float, float], output_fit: tuple[float, float]
) -> None:
    lengths = preset(name).lengths.draw(np.random.default_rng(5), N)
    for tokens, (mu, sigma) in zip(lengths, (prompt_fit, output_fit), strict=True):
        logs = np.log(tokens)
        # Lengths below one token become one, which lifts mu by less than the expected excess below ln 1 = 0.
        z = mu / sigma
        floor_bias = sigma * (math.exp(-z * z / 2) / math.sqrt(2 * math.pi) - z * math.erfc(z / math.sqrt(2)) / 2)
        assert abs(logs.mean() - mu) <= SIGMAS * sigma / math.sqrt(N) + floor_bias
        assert abs(logs.std() - sigma) <= SIGMAS * sigma / math.sqrt(2 * N) + floor_bias


def test_sharegpt_like_lengths_have_the_means_of_the_vllm_paper() -> None:
    lengths = preset("sharegpt-like").lengths
    for marginal, mean in ((lengths.prompt, 161.31), (lengths.output, 337.99)):
        assert isinstance(marginal, Lognormal)
        assert math.exp(marginal.mu + marginal.sigma**2 / 2) == pytest.approx(mean, rel=1e-3)


@pytest.mark.slow
def test_the_long_context_mix_reaches_from_chat_to_128k_and_never_beyond() -> None:
    prompt, output = preset("long-context-mix").lengths.draw(np.random.default_rng(5), N)
    assert (prompt + output).max() <= 131_072
    assert 10_000 < prompt.mean() < 16_000
    assert np.quantile(prompt, 0.5) < 4_000
    assert 0.10 < (prompt > 32_768).mean() < 0.25
    assert (prompt > 65_536).mean() > 0.04


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    assert isinstance(PRESETS[name].lengths, Coupled)
    assert PRESETS[name].description
    assert "fit to" in PRESETS[name].source or "ours" in PRESETS[name].source


def test_an_unknown_preset_is_refused_with_the_names_accepted() -> None:
    with pytest.raises(InputError, match="unknown preset 'chta'; accepted: chat, agentic-coding, long-reasoning"):
        preset("chta")
