"""The traffic of the cases as plain values, and traces made from it at a load that no policy's result decided."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from l4sim.batch import Batch, Prefill
from l4sim.experiment import Setup
from l4sim.workload.load import load_trace
from l4sim.workload.synth.named import synthesize_named
from l4sim.workload.trace import Trace
from l4sim.workload.transform import pace, take

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("L4SIM_SHARED", ROOT / ".." / "shared")) / "traces"

# The batch by which loads are told (ours): so many requests decode, or as many as fit, beside such a chunk of prompt.
_REQUESTS, _CHUNK_TOKENS = 64, 2048


@dataclass(frozen=True)
class Synthetic:
    """Lengths and arrivals by name, one trace per seed. Times are in mean gaps between arrivals: loads rescale them."""

    requests: int
    lengths: str | None = None
    prompt_lengths: str | None = None
    output_lengths: str | None = None
    arrivals: str = "poisson"
    turns: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def trace(self, seed: int) -> Trace:
        """The trace of a seed, one arrival per second."""
        return synthesize_named(
            lengths=self.lengths,
            prompt_lengths=self.prompt_lengths,
            output_lengths=self.output_lengths,
            requests=self.requests,
            arrivals=self.arrivals,
            turns=self.turns,
            seed=seed,
            parameters={"rate_per_s": 1.0, **self.parameters},
        )


@dataclass(frozen=True)
class Recorded:
    """Stretches of a recorded trace, the seeds being their numbers, from ``first`` on."""

    file: str
    """In the folder of shared traces; from ``bundled/`` in the project's own."""
    requests: int
    first: int = 0
    dejitter_s: float | None = None
    longest_tokens: int = 120_000
    """Longer requests, which not every model serves, are left out."""

    @property
    def path(self) -> Path:
        """Where the trace is."""
        kind, _, name = self.file.rpartition("/")
        return ROOT / "traces" / name if kind == "bundled" else SHARED / name

    def trace(self, seed: int) -> Trace:
        """The stretch of a number, which begins at 0 s; empty behind the trace's end."""
        whole = _whole(self.path, self.dejitter_s, self.longest_tokens)
        begin = self.first + seed * self.requests
        part = take(whole, np.arange(begin, min(begin + self.requests, len(whole))))
        return replace(part, arrival_s=part.arrival_s - np.nanmin(part.arrival_s)) if len(part) else part


@lru_cache(maxsize=2)
def _whole(path: Path, dejitter_s: float | None, longest_tokens: int) -> Trace:
    trace = load_trace(path, dejitter_s=dejitter_s)
    fits = trace.prompt_tokens + trace.output_tokens <= longest_tokens
    # A closed-loop turn cannot be left without the one before it.
    return take(trace, np.flatnonzero(fits)) if (trace.after < 0).all() else trace


class Work(NamedTuple):
    """What a request costs on average."""

    prompt_tokens: float
    """That are computed, if no prefix is ever evicted."""
    output_tokens: float
    context_tokens: float
    """While it decodes."""


def work_of(trace: Trace, *, prefix_caching: bool) -> Work:
    """The mean work of a trace's requests; with prefix caching every prefix is computed once."""
    prompt = float(trace.prompt_tokens.mean())
    if trace.prefix is not None and prefix_caching:
        ids = trace.prefix.ids
        prompt *= len(np.unique(ids)) / max(1, len(ids))
    output = float(trace.output_tokens.mean())
    weighted = trace.output_tokens * (trace.prompt_tokens + trace.output_tokens / 2)
    return Work(prompt, output, float(weighted.sum() / trace.output_tokens.sum()))


def at_load(trace: Trace, setup: Setup, load: float) -> Trace:
    """The trace at a rate that keeps the instances busy for a share of their time, by the cost model alone. (Ours.)

    A request takes its share of a reference batch's iterations while it decodes, and its prompt's seconds. Queues and
    unequal batches are not in it, so that a load of 1 is more than most clusters carry, and no policy has a say.
    """
    work = work_of(trace, prefix_caching=setup.options.prefix_caching)
    seconds = 0.0
    for group in setup.groups:
        context = int(min(max(1, work.context_tokens), group.engine.max_model_len))
        kv_tokens = group.engine.kv_blocks * group.engine.block_tokens
        requests = max(1, min(_REQUESTS, group.engine.max_num_seqs, kv_tokens // context))
        decode = Batch(np.full(requests, context), requests * context)
        decode_s = group.cost.iteration_s(decode)
        mixed_s = group.cost.iteration_s(decode._replace(prefills=(Prefill(_CHUNK_TOKENS, 0),)))
        own = work.output_tokens * decode_s / requests + work.prompt_tokens * (mixed_s - decode_s) / _CHUNK_TOKENS
        seconds += group.spec.count / own
    open_share = float((trace.after < 0).mean())
    return pace(trace, rate_per_s=load * seconds * open_share)
