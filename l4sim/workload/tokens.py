"""Counting the tokens of texts, for trace formats that hold texts."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from l4sim.errors import InputError

CHARACTERS_PER_TOKEN = 4
"""The usual rule of thumb for English text and byte-pair vocabularies."""

ASSUMED_OUTPUT_TOKENS = 256
"""Output tokens where a format gives none: the default of vLLM's benchmark for custom datasets."""


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """How texts become token counts."""

    count: Callable[[str], int]
    """Tokens of one text, >= 1."""
    warning: str | None
    """What the user should know, if the counts are estimates."""


def token_counter(tokens: str) -> TokenCounter:
    """The counter called ``"estimate"``, or the tokenizer of that Hugging Face name or ``tokenizer.json`` path.

    Raises `InputError` if the tokenizer cannot be had.
    """
    if tokens == "estimate":
        return TokenCounter(
            _estimate,
            f"token counts are estimated from the texts ({CHARACTERS_PER_TOKEN} characters per token, rounded up): "
            "name a tokenizer with --tokens",
        )
    try:
        tokenizers = importlib.import_module("tokenizers")
    except ImportError:
        raise InputError(
            f"counting tokens with '{tokens}' needs the package 'tokenizers': install l4sim[tokenizers]"
        ) from None
    try:
        path = Path(tokens)
        load = tokenizers.Tokenizer.from_file if path.is_file() else tokenizers.Tokenizer.from_pretrained
        tokenizer = load(tokens)
    except Exception as error:  # the package raises bare Exception for every failure
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"no tokenizer '{tokens}': expected a file or a Hugging Face name ({reason})") from None
    return TokenCounter(lambda text: max(1, len(tokenizer.encode(text).ids)), None)


def _estimate(text: str) -> int:
    return max(1, -(-len(text) // CHARACTERS_PER_TOKEN))
