"""What is written of an engine's run, told by a scheduler that is a script."""

from __future__ import annotations

import gzip
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from validate_gpu.vllm.run_recorder import RunRecorder


@dataclass
class Request:
    """As much of vLLM's as is read."""

    request_id: str
    num_prompt_tokens: int
    blocks: list[bytes] = field(default_factory=list)
    arrival_time: float = field(default_factory=time.time)
    priority: int = 0
    num_output_tokens: int = 0
    num_computed_tokens: int = 0
    num_preemptions: int = 0
    reason: str | None = None

    def is_finished(self) -> bool:
        return self.reason is not None

    def get_finished_reason(self) -> str | None:
        return self.reason


class Script:
    """A scheduler's calls, at moments that the test sets."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 100.0
        self.folder = folder
        self.recorder = RunRecorder(folder, lambda request: request.blocks, 4, clock=lambda: self.now_s)

    def add(self, request: Request, now_s: float) -> None:
        self.now_s = now_s
        self.recorder.queued(request)

    def schedule(self, now_s: float, tokens: dict[Request | Any, int], preempted: tuple[str, ...] = ()) -> object:
        output = object()
        for request, own in tokens.items():
            request.num_computed_tokens += own
        by_id = {request.request_id: own for request, own in tokens.items()}
        self.recorder.scheduled(output, now_s, by_id, preempted, waiting=0, kv_blocks_used=3)
        self.outputs = [*getattr(self, "outputs", []), output]
        return output

    def end(self, output: object, now_s: float, answered: tuple[Request, ...]) -> None:
        for request in answered:
            request.num_output_tokens += 1
        finished = [request.request_id for request in answered if request.is_finished()]
        self.recorder.ended(output, now_s, {request.request_id for request in answered}, finished)

    def written(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        self.recorder.close()
        return lines(self.folder / "requests.jsonl.gz"), lines(self.folder / "iterations.jsonl.gz")


def lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


Request.__hash__ = object.__hash__  # type: ignore[method-assign]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


def test_an_iteration_begins_where_the_one_before_ended_or_idleness_did(script: Script) -> None:
    first, second = Request("a", 6), Request("b", 6)
    script.add(first, 101.0)
    script.end(script.schedule(101.25, {first: 6}), 102.0, (first,))
    first.reason = "length"
    script.end(script.schedule(102.25, {first: 1}), 103.0, (first,))
    script.add(second, 110.0)
    script.end(script.schedule(110.5, {second: 6}), 111.0, (second,))
    _, iterations = script.written()
    assert [(row["start_ts"], row["scheduled_ts"], row["end_ts"]) for row in iterations] == [
        (101.0, 101.25, 102.0),
        (102.0, 102.25, 103.0),
        (110.0, 110.5, 111.0),
    ]
    assert [row["seconds"] for row in iterations] == [1.0, 1.0, 1.0]


def test_an_iteration_tells_whose_tokens_it_computed_behind_which_contexts(script: Script) -> None:
    long, short = Request("long", 10), Request("short", 3)
    script.add(long, 101.0)
    script.add(short, 101.0)
    script.end(script.schedule(101.0, {long: 5, short: 3}), 102.0, (short,))
    script.end(script.schedule(102.0, {short: 1, long: 5}), 103.0, (short, long))
    _, iterations = script.written()
    assert [row["work"] for row in iterations] == [[[0, 5, 0, 0], [1, 3, 0, 1]], [[1, 1, 3, 1], [0, 5, 5, 1]]]
    assert [(row["tokens"], row["context_tokens"]) for row in iterations] == [(8, 0), (6, 8)]


def test_an_engine_that_plans_ahead_has_two_iterations_under_way(script: Script) -> None:
    request = Request("a", 4)
    script.add(request, 101.0)
    one = script.schedule(101.0, {request: 4})
    two = script.schedule(101.5, {request: 1})
    script.end(one, 102.0, (request,))
    script.end(two, 103.0, (request,))
    _, iterations = script.written()
    assert [row["work"] for row in iterations] == [[[0, 4, 0, 1]], [[0, 1, 4, 1]]]
    assert [row["seconds"] for row in iterations] == [1.0, 1.0]


def test_a_request_has_its_moments_its_cached_tokens_and_numbered_blocks(script: Script) -> None:
    first = Request("a", 9, [b"x", b"y", b"z"])
    script.add(first, 101.0)
    script.end(script.schedule(101.5, {first: 9}), 102.0, (first,))
    script.end(script.schedule(102.0, {first: 1}), 103.0, (first,))
    script.end(script.schedule(103.0, {first: 1}), 104.0, (first,))
    second = Request("b", 8, [b"x", b"other"], num_computed_tokens=4)
    script.add(second, 103.5)
    first.reason = "length"
    script.end(script.schedule(104.0, {second: 4}), 105.0, (second,))
    second.reason = "abort"
    requests, _ = script.written()
    told = {row["request_id"]: row for row in requests}
    assert (told["a"]["queued_ts"], told["a"]["scheduled_ts"]) == (101.0, 101.5)
    assert (told["a"]["first_token_ts"], told["a"]["last_token_ts"]) == (102.0, 104.0)
    assert (told["a"]["input_toks"], told["a"]["output_toks"]) == (9, 3)
    assert (told["a"]["prefix_ids"], told["a"]["answer_ids"]) == ([0, 1], [2])
    assert (told["b"]["cached_toks"], told["b"]["prefix_ids"]) == (4, [0, 3])
    assert (told["a"]["finish_reason"], told["b"]["finish_reason"]) == ("length", "abort")


def test_a_request_that_has_not_ended_is_written_without_a_reason(script: Script) -> None:
    script.add(Request("a", 9), 101.0)
    requests, iterations = script.written()
    assert (requests[0]["finish_reason"], requests[0]["first_token_ts"], iterations) == (None, None, [])


def test_victims_are_named(script: Script) -> None:
    first, second = Request("a", 4), Request("b", 4)
    script.add(first, 101.0)
    script.add(second, 101.0)
    script.end(script.schedule(101.0, {first: 4, second: 4}), 102.0, (first, second))
    second.num_computed_tokens = 0
    script.end(script.schedule(102.0, {first: 1}, preempted=("b",)), 103.0, (first,))
    _, iterations = script.written()
    assert [row["preempted"] for row in iterations] == [[], [1]]
