"""Random instances and requests, with tokens for vLLM and the names of their blocks for us."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Any

from l4sim.engine.config import EngineConfig
from tests.engine.vllm.reference import Job, Work

SHARED, OWN, ANSWERS = 10**7, 10**9, 2 * 10**9
SPAN = 10**5
"""Tokens that are numbered for one request."""


@dataclass(frozen=True)
class Ask:
    """A request as its user sends it."""

    arrival_s: float
    tokens: list[int]
    output_tokens: int
    priority: int = 0


@dataclass(frozen=True)
class Case:
    """An instance, and what it is asked in order of arrival."""

    config: EngineConfig
    asks: list[Ask]

    def jobs(self) -> list[Job]:
        """The requests as a trace tells them: lengths, and names of blocks that are alike where their contents are."""
        size = self.config.block_tokens
        names: dict[tuple[int, tuple[int, ...]], int] = {}
        jobs = []
        for index, ask in enumerate(self.asks):
            tokens = ask.tokens + answer(index, ask.output_tokens)
            keys, before = [], -1
            for start in range(0, len(tokens) - size + 1, size):
                before = names.setdefault((before, tuple(tokens[start : start + size])), len(names))
                keys.append(range(before, before + 1))
            named = tuple(keys) if self.config.prefix_caching else ()
            jobs.append(Job(ask.arrival_s, len(ask.tokens), ask.output_tokens, named, ask.priority))
        return jobs


def answer(request: int, tokens: int) -> list[int]:
    """The tokens that a request is answered with."""
    return list(range(ANSWERS + SPAN * request, ANSWERS + SPAN * request + tokens))


def iteration_s(work: Sequence[Work]) -> float:
    """A second, and more for prompts; binary fractions, so that sums are exact."""
    return 1.0 + sum(share.tokens for share in work if share.tokens > 1) / 64


SETTINGS = tuple(product(("cache", "no-cache"), ("async", "sync"), ("reserve", "no-reserve"), ("short", "ample")))
"""Prefix cache, scheduling, admission, and how many KV blocks there are."""


def small_cases(setting: Sequence[str], seed: object, count: int, **options: Any) -> Iterator[Case]:
    """Instances with few KV blocks and small batches, overloaded; prompts that begin alike, turns that go on.

    ``options`` of the instance may be functions of the random numbers. No two events coincide.
    """
    random = Random(repr((setting, seed)))
    cache, scheduling, admission, blocks = setting
    for _ in range(count):
        seqs = random.randint(1, 8)
        config = EngineConfig(
            kv_blocks=random.randint(8, 30) if blocks == "short" else random.randint(150, 400),
            max_model_len=5000,
            max_num_seqs=seqs,
            max_num_batched_tokens=random.randint(max(seqs, 2), 48),
            block_tokens=random.choice([2, 4]),
            prefix_caching=cache == "cache",
            reserve_full_prompt=admission == "reserve",
            async_scheduling=scheduling == "async",
            **{name: option(random) if callable(option) else option for name, option in options.items()},
        )
        yield Case(config, _asks(random, config))


def realistic_case(seed: object, **options: Any) -> Case:
    """Chats behind a few system prompts, on an instance of usual size; ``kv_blocks`` of 1,500 are short of them."""
    random = Random(repr(seed))
    config = EngineConfig(
        max_model_len=32768, max_num_seqs=128, max_num_batched_tokens=2048, block_tokens=16, **options
    )
    turns: list[tuple[int, int]] = []
    for chat in range(20):
        second = 4 * chat
        for _ in range(4):
            turns.append((second, chat))
            second += random.randint(15, 60)
    asks: list[Ask] = []
    said = {chat: list(range(SHARED + SPAN * (chat % 4), SHARED + SPAN * (chat % 4) + 250)) for chat in range(20)}
    for index, (second, chat) in enumerate(sorted(turns)):
        said[chat] += _own(index, random.randint(8, 500))
        asks.append(Ask(second + (2 * index + 1) / 4096, list(said[chat]), random.randint(20, 300)))
        said[chat] += answer(index, asks[-1].output_tokens)
    return Case(config, asks)


def _asks(random: Random, config: EngineConfig) -> list[Ask]:
    room = config.kv_blocks * config.block_tokens
    cap = min(room * 2 // 3, 120)
    asks: list[Ask] = []
    second = 0
    for index in range(random.randint(1, 12)):
        second += random.randint(0, 8)
        prompt = random.randint(1, cap)
        if asks and random.random() < 0.25:
            # A further turn: what was asked and answered before, and something new.
            earlier = random.randrange(len(asks))
            begun = asks[earlier].tokens + answer(earlier, asks[earlier].output_tokens)
            tokens = (begun + _own(index, random.randint(1, 20)))[:cap]
        else:
            family, shared = random.randint(0, 2), random.randint(0, prompt)
            tokens = list(range(SHARED + SPAN * family, SHARED + SPAN * family + shared)) + _own(index, prompt - shared)
        output = random.randint(1, min(40, room - len(tokens) + 1))
        asks.append(Ask(second + (2 * index + 1) / 4096, tokens, output, random.randint(0, 2)))
    return asks


def _own(index: int, tokens: int) -> list[int]:
    return list(range(OWN + SPAN * index, OWN + SPAN * index + tokens))
