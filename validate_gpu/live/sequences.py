"""What requests say: made-up prompts, and the tokens sampled so far."""

from __future__ import annotations

from array import array
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int64]


class Sequences:
    """Token ids of all requests of a run, which instance ever serves them."""

    def __init__(self, vocab: int, seed: int) -> None:
        self._vocab = vocab
        self._seed = seed
        self.sampled: defaultdict[int, array[int]] = defaultdict(lambda: array("q"))
        """By request: the tokens sampled so far."""

    def tokens(self, request: int, prompt_tokens: int, start: int, end: int) -> TokenIds:
        """Ids of a request's tokens ``[start, end)``, prompt and sampled; shape ``[end - start]``."""
        parts = []
        if start < prompt_tokens:
            parts.append(prompt_ids(request, start, min(end, prompt_tokens), self._vocab, self._seed))
        if end > prompt_tokens:
            sampled = self.sampled[request][max(start - prompt_tokens, 0) : end - prompt_tokens]
            parts.append(np.frombuffer(sampled, dtype=np.int64))
        return np.concatenate(parts)

    def append(self, request: int, position: int, token: int) -> None:
        """Note the ``position``-th sampled token, from 0; what an instance sampled as it died is overwritten."""
        sampled = self.sampled[request]
        del sampled[position:]
        sampled.append(token)


def prompt_ids(request: int, start: int, end: int, vocab: int, seed: int) -> TokenIds:
    """Ids of a prompt's tokens ``[start, end)``: a hash of seed, request and position, so that none need be kept.

    SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA '14).
    """
    positions = np.arange(start, end, dtype=np.uint64)
    offset = np.uint64((seed * 0x9E3779B97F4A7C15 + request * 0xD1B54A32D192ED03) % 2**64)
    mixed = positions * np.uint64(0x9E3779B97F4A7C15) + offset
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return (mixed % np.uint64(vocab)).astype(np.int64)
