"""Writes one engine's run: each request when it ends, each iteration with every request's part in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from validate_gpu.vllm.files import JsonLines

Hashes = Callable[[Any], list[bytes]]
"""The chained hashes of a request's full KV blocks, prompt and answer, as the engine's prefix cache has them."""


class EngineRequest(Protocol):
    """What is read of vLLM's ``Request``."""

    request_id: str
    arrival_time: float
    priority: int
    num_prompt_tokens: int
    num_output_tokens: int
    num_computed_tokens: int
    num_preemptions: int

    def is_finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        ...

    def get_finished_reason(self) -> object:
        """In which way."""
        ...


@dataclass(slots=True, eq=False)
class _Live:
    """A request that has not ended, with its moments on the monotonic clock, seconds."""

    number: int
    request: EngineRequest
    arrival_s: float
    queued_s: float
    scheduled_s: float | None = None
    cached_tokens: int | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Iteration:
    scheduled_s: float
    work: list[tuple[str, int, int, int]]
    """By request: its id, its number, its tokens of work, and its tokens whose KV was there before."""
    preempted: list[int]
    waiting: int
    kv_blocks_used: int


class RunRecorder:
    """Told by the scheduler of what it decides and of what comes back; moments are of the monotonic clock.

    What can be done later is left to the files' threads: an iteration waits for what is done here.
    """

    def __init__(
        self, folder: Path, hashes: Hashes, block_tokens: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._requests = JsonLines(folder / "requests.jsonl.gz")
        self._iterations = JsonLines(folder / "iterations.jsonl.gz")
        self._hashes = hashes
        self._block_tokens = block_tokens
        self._clock = clock
        self._live: dict[str, _Live] = {}
        self._under_way: dict[int, _Iteration] = {}
        self._ids: dict[bytes, int] = {}
        self._count = 0
        self._start_s = clock()

    def queued(self, request: EngineRequest) -> None:
        """The engine has taken a request into its queue."""
        now_s = self._clock()
        if not self._live and not self._under_way:
            # The engine has had nothing to do: the next iteration cannot have begun earlier.
            self._start_s = now_s
        # The front end stamps by the wall's clock.
        arrival_s = now_s - max(time.time() - request.arrival_time, 0.0)
        self._live[request.request_id] = _Live(self._count, request, arrival_s, now_s)
        self._count += 1

    def scheduled(
        self,
        output: object,
        scheduled_s: float,
        tokens: Mapping[str, int],
        preempted: Iterable[str],
        waiting: int,
        kv_blocks_used: int,
    ) -> None:
        """An iteration has been decided on: ``tokens`` of each request, which count as computed already."""
        lives, work = self._live, []
        for request_id, own in tokens.items():
            live = lives[request_id]
            done = live.request.num_computed_tokens - own
            work.append((request_id, live.number, own, done))
            if live.scheduled_s is None:
                live.scheduled_s, live.cached_tokens = scheduled_s, done
        victims = [lives[request_id].number for request_id in preempted if request_id in lives]
        self._under_way[id(output)] = _Iteration(scheduled_s, work, victims, waiting, kv_blocks_used)

    def ended(self, output: object, end_s: float, answered: Collection[str], finished: Iterable[str]) -> None:
        """An iteration's results are in: the requests that got a token with it, and those that it ended."""
        iteration = self._under_way.pop(id(output), None)
        if iteration is not None:
            self._iterations.write(partial(_iteration_row, iteration, self._start_s, end_s, answered))
            self._start_s = end_s
        for request_id in answered:
            live = self._live.get(request_id)
            if live is not None:
                live.last_token_s = end_s
                if live.first_token_s is None:
                    live.first_token_s = end_s
        self.finished(finished)

    def finished(self, requests: Iterable[str]) -> None:
        """These have ended, in whatever way."""
        for request_id in requests:
            live = self._live.pop(request_id, None)
            if live is not None:
                self._requests.write(partial(self._request_row, live))

    def close(self) -> None:
        """Write all that is left: requests that have not ended have no ``finish_reason``."""
        self.finished(list(self._live))
        self._requests.close()
        self._iterations.close()

    def _request_row(self, live: _Live) -> dict[str, Any]:
        request = live.request
        prompt_blocks = request.num_prompt_tokens // self._block_tokens
        ids = [self._ids.setdefault(block, len(self._ids)) for block in self._hashes(request)]
        return {
            "number": live.number,
            "request_id": request.request_id,
            "input_toks": request.num_prompt_tokens,
            "output_toks": request.num_output_tokens,
            "arrival_time": request.arrival_time,
            "arrival_ts": live.arrival_s,
            "queued_ts": live.queued_s,
            "scheduled_ts": live.scheduled_s,
            "first_token_ts": live.first_token_s,
            "last_token_ts": live.last_token_s,
            "priority": request.priority,
            "preemptions": request.num_preemptions,
            "cached_toks": live.cached_tokens,
            "finish_reason": str(request.get_finished_reason()) if request.is_finished() else None,
            "prefix_ids": ids[:prompt_blocks],
            "answer_ids": ids[prompt_blocks:],
        }


def _iteration_row(iteration: _Iteration, start_s: float, end_s: float, answered: Collection[str]) -> dict[str, Any]:
    return {
        "start_ts": start_s,
        "scheduled_ts": iteration.scheduled_s,
        "end_ts": end_s,
        "seconds": end_s - start_s,
        "tokens": sum([tokens for _, _, tokens, _ in iteration.work]),
        "context_tokens": sum([done for _, _, _, done in iteration.work]),
        "work": [
            (number, tokens, done, 1 if request_id in answered else 0)
            for request_id, number, tokens, done in iteration.work
        ],
        "preempted": iteration.preempted,
        "waiting": iteration.waiting,
        "kv_blocks_used": iteration.kv_blocks_used,
    }
