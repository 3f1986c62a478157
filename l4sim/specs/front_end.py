"""The API server before an engine: seconds that a request and its tokens spend outside the engine."""

from __future__ import annotations

import re
from dataclasses import dataclass

from l4sim.errors import InputError
from l4sim.specs.fitted import load_fitted

_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000}
_SECONDS = re.compile(r"\s*(\d+(?:\.\d*)?(?:e-?\d+)?)\s*(s|ms|us)\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class FrontEndCosts:
    """What HTTP, tokenizing and streaming take; all zero where times are the engine's own."""

    request_s: float = 0.0
    """Of a request whatever its length: connection, HTTP, validation, hand-over to the engine; and the way back."""
    prompt_token_s: float = 0.0
    """Before the engine, of each prompt token: tokenizing."""
    streamed_token_s: float = 0.0
    """After the engine, of each token: one process takes the tokens of an iteration one after the other."""

    def before_s(self, prompt_tokens: int) -> float:
        """From a request's arrival until the engine has it."""
        return self.request_s + prompt_tokens * self.prompt_token_s

    def first_token_s(self, batch_tokens: int) -> float:
        """From an iteration's end until a first token is out: new requests come last in the batch, as in vLLM."""
        return self.streamed_token_s * batch_tokens

    def last_token_s(self, batch_tokens: int) -> float:
        """The same of a last token, which comes anywhere in the batch: after half of the others."""
        return self.streamed_token_s * batch_tokens / 2


NO_FRONT_END = FrontEndCosts()

OFF, VLLM = "off", "vllm"
"""Front ends by name: none, and vLLM's API server as it was fitted to what clients measured."""


def load_front_end(text: str) -> FrontEndCosts:
    """A front end by name, or by its seconds per request, per prompt token and per streamed token.

    ``5ms,1us,60us`` are 5 ms, 1 µs and 60 µs.

    Raises:
        InputError: neither.
    """
    if text == OFF:
        return NO_FRONT_END
    if text == VLLM:
        fitted = load_fitted().front_end
        return FrontEndCosts(fitted.request_s, fitted.prompt_token_s, fitted.streamed_token_s)
    parts = [_SECONDS.fullmatch(part) for part in text.split(",")]
    if len(parts) != 3 or not all(parts):
        raise InputError(
            f"--front-end: {text!r} is not accepted, accepted are {OFF}, {VLLM}, or seconds per request, per "
            "prompt token and per streamed token, such as 5ms,1us,60us"
        )
    return FrontEndCosts(*(float(part[1]) / _PER_S[part[2]] for part in parts if part))
