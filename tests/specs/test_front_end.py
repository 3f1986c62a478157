"""What stands before the engines: by name, by its seconds, and what it adds to whose time."""

from __future__ import annotations

import pytest

from l4sim.errors import InputError
from l4sim.specs.fitted import load_fitted
from l4sim.specs.front_end import NO_FRONT_END, FrontEndCosts, load_front_end


def test_it_is_named_or_given_by_its_seconds() -> None:
    assert load_front_end("off") == NO_FRONT_END
    assert load_front_end("5ms,1us,60us") == FrontEndCosts(5e-3, 1e-6, 60e-6)
    assert load_front_end("0.005s, 0s, 0.00006s") == FrontEndCosts(5e-3, 0.0, 60e-6)
    assert load_front_end("vllm").request_s == load_fitted().front_end.request_s > 0


@pytest.mark.parametrize("text", ["nginx", "5ms", "5ms,1us", "5,1,60", "-5ms,1us,60us", "5ms,1us,60us,1s"])
def test_anything_else_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(InputError, match=r"--front-end: .* accepted are off, vllm, or seconds per request"):
        load_front_end(text)


def test_a_first_token_waits_for_all_tokens_of_its_iteration_and_a_last_one_for_half() -> None:
    costs = FrontEndCosts(5e-3, 1e-6, 60e-6)
    assert costs.before_s(1000) == pytest.approx(6e-3)
    assert costs.first_token_s(100) == pytest.approx(6e-3)
    assert costs.last_token_s(100) == pytest.approx(3e-3)
