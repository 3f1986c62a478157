"""A recorded run once more with its own seconds: what is left to differ are the engine's decisions."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from l4sim.calibration.datasheet import roofline_profile
from l4sim.calibration.profile_json import write_profile
from l4sim.cost.profile import load_profile
from l4sim.engine.protocol import Step
from l4sim.engine.request import Request
from l4sim.engine.rules import engine_named
from l4sim.errors import InputError
from l4sim.experiment import Setup
from l4sim.recordings.fit import recorded_gpu
from l4sim.recordings.instance import find_model, one_instance
from l4sim.recordings.own import (
    OwnRequest,
    RecordedIteration,
    prefix_blocks,
    read_iterations,
    read_recording,
    read_requests,
    recognises,
)
from l4sim.runtime.trace_requests import TraceRequests
from l4sim.workload.trace import Trace

Shares = tuple[tuple[int, int, int], ...]
"""An iteration's work: request, tokens, tokens computed before; sorted."""


class Difference(NamedTuple):
    """The first iteration that the engine's rules decide otherwise than the engine did."""

    iteration: int
    """From 0."""
    recorded: Shares
    decided: Shares


@dataclass(frozen=True, slots=True)
class OwnSeconds:
    """How far the engine's rules decide as the recorded engine did."""

    iterations: int
    """That were recorded."""
    alike: int
    """Of these, how many from the first on compute the same."""
    difference: Difference | None
    ttft_off_s: NDArray[np.float64]
    """Decided less recorded time of the first token, for the requests that got theirs in iterations alike, ``[n]``."""
    e2e_off_s: NDArray[np.float64]
    """The same of the last token."""
    preemptions: int
    """In the iterations alike."""

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, of differences in time the largest."""
        return {
            "iterations": self.iterations,
            "alike": self.alike,
            "difference": None if self.difference is None else self.difference._asdict(),
            "ttft_off_s": _largest(self.ttft_off_s),
            "e2e_off_s": _largest(self.e2e_off_s),
            "preemptions": self.preemptions,
        }

    def in_words(self) -> str:
        """The same in a line, and in a second one where it went apart."""
        told = (
            f"{self.alike:,} of {self.iterations:,} iterations compute the same, {self.preemptions} preemptions among "
            f"them; TTFT of {len(self.ttft_off_s):,} requests off by {_largest(self.ttft_off_s):.3g} s at most, E2E of "
            f"{len(self.e2e_off_s):,} by {_largest(self.e2e_off_s):.3g} s"
        )
        if self.difference is None:
            return told
        number, recorded, decided = self.difference
        apart = (sorted(set(one) - set(other)) for one, other in ((recorded, decided), (decided, recorded)))
        engine, rules = (f"{shares[:3]}{' ...' if len(shares) > 3 else ''}" for shares in apart)
        return f"{told}\niteration {number}: only in the engine's {engine}, only in the rules' {rules}"


def validate_own_seconds(
    folder: Path, *, model: str | None = None, options: Mapping[str, Any] | None = None
) -> OwnSeconds:
    """`replay_own_seconds` of a folder that `l4sim record` wrote; no costs are needed.

    Raises:
        InputError: it is no such folder, or a file or field is missing or invalid.
    """
    if not recognises(folder):
        raise InputError(f"{folder}: no iterations are in it: accepted is what l4sim record wrote")
    recording = read_recording(folder)
    with tempfile.TemporaryDirectory() as made:
        # Of any costs: none are asked for.
        write_profile(roofline_profile(recorded_gpu(folder, None)), Path(made))
        profile = load_profile(made)
    setup, _ = one_instance(recording.engine, find_model(recording, model), profile, given=options)
    return replay_own_seconds(read_requests(folder), read_iterations(folder), setup)


def replay_own_seconds(
    requests: Sequence[OwnRequest], iterations: Sequence[RecordedIteration], setup: Setup
) -> OwnSeconds:
    """Ask an engine of the same options for every iteration in turn, each ending when the recorded one did.

    A request is there for the first iteration that the engine scheduled after it had queued it.
    """
    rows = TraceRequests(_trace(requests, setup), setup.engine.block_tokens, prefix_caching=setup.engine.prefix_caching)
    engine = engine_named(setup.options.engine_rules)(setup.engine, max_iterations=1)
    arriving = deque(range(len(requests)))
    began: list[Request] = []
    step: Step | None = None
    alike, difference = 0, None
    for number, iteration in enumerate(iterations):
        before = iterations[number - 1] if number else iteration
        # Planned while the one before still ran, it knew what had come when that began, and not how that ended.
        ahead = iteration.scheduled_s < before.end_s and step is not None
        if step is not None and not ahead:
            engine.commit(step, before.end_s)
        felt_s = before.start_s if ahead else iteration.start_s
        while arriving and requests[arriving[0]].queued_ts <= iteration.scheduled_s:
            began.append(rows.request(arriving.popleft(), felt_s))
            engine.add(began[-1], felt_s)
        if step is not None and ahead:
            engine.commit(step, before.end_s)
        step = engine.plan(iteration.start_s)
        decided = () if step is None else _shares(step, engine.decoding_requests)
        recorded = tuple(sorted((one.request, one.tokens, one.context_tokens) for one in iteration.work))
        if decided != recorded:
            difference = Difference(number, recorded, decided)
            break
        alike += 1
    if step is not None and difference is None:
        engine.commit(step, iterations[-1].end_s)
    return OwnSeconds(
        len(iterations),
        alike,
        difference,
        _off(began, requests, "first_token_s", "first_token_ts"),
        _off([one for one in began if _has_ended(one)], requests, "last_token_s", "last_token_ts"),
        sum(one.preemptions for one in began),
    )


def _trace(requests: Sequence[OwnRequest], setup: Setup) -> Trace:
    nobody = np.full(len(requests), -1)
    return Trace(
        name="recorded",
        request_id=tuple(one.request_id for one in requests),
        arrival_s=np.array([one.queued_ts for one in requests]),
        prompt_tokens=np.array([one.input_toks for one in requests]),
        # An answer that was aborted before its first token is none that an engine could give.
        output_tokens=np.array([max(one.output_toks, 1) for one in requests]),
        session=nobody,
        after=nobody,
        delay_s=np.full(len(requests), np.nan),
        prefix=prefix_blocks(requests, setup.engine.block_tokens),
    )


def _shares(step: Step, decoding: Sequence[Request]) -> Shares:
    decodes = [
        (request.index, 1, int(context) - 1)
        for request, context in zip(decoding, step.batch.decode_context_tokens, strict=True)
    ]
    return tuple(sorted([*decodes, *((chunk.request.index, chunk.tokens, chunk.done_tokens) for chunk in step.chunks)]))


def _largest(seconds: NDArray[np.float64]) -> float:
    return float(np.abs(seconds).max(initial=0.0))


def _has_ended(request: Request) -> bool:
    return request.generated_tokens >= request.output_tokens


def _off(began: Sequence[Request], requests: Sequence[OwnRequest], decided: str, recorded: str) -> NDArray[np.float64]:
    pairs = [(getattr(one, decided), getattr(requests[one.index], recorded)) for one in began]
    return np.array([ours - theirs for ours, theirs in pairs if not np.isnan(ours) and theirs is not None])
