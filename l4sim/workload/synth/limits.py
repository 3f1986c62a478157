"""The context limit of a model, applied to a trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from l4sim.workload.prefix_runs import cut
from l4sim.workload.synth.checks import require
from l4sim.workload.trace import Trace
from l4sim.workload.transform import take


def limit_context(trace: Trace, limit_tokens: int, over_limit: Literal["clip", "drop"]) -> Trace:
    """Make every request's prompt and output fit into ``limit_tokens`` together.

    ``"clip"`` shortens the prompt's end first, down to one token, then the output. ``"drop"`` leaves out the requests
    that do not fit, and the turns of their sessions that would follow them. What was done is counted in
    ``Trace.warnings``. Raises InputError for a limit below 2, another mode, or where no request is left.
    """
    require(limit_tokens >= 2, f"the context limit must be an integer >= 2 tokens, not {limit_tokens}")
    require(over_limit in ("clip", "drop"), f"over_limit must be 'clip' or 'drop', not {over_limit!r}")
    fits = trace.prompt_tokens + trace.output_tokens <= limit_tokens
    if fits.all():
        return trace
    return _clip(trace, limit_tokens) if over_limit == "clip" else _drop(trace, limit_tokens)


def _clip(trace: Trace, limit_tokens: int) -> Trace:
    output_tokens = np.minimum(trace.output_tokens, limit_tokens - 1)
    prompt_tokens = np.minimum(trace.prompt_tokens, limit_tokens - output_tokens)
    prompts = int((prompt_tokens < trace.prompt_tokens).sum())
    outputs = int((output_tokens < trace.output_tokens).sum())
    warning = (
        f"context limit of {limit_tokens} tokens: the prompts of {prompts} and the outputs of {outputs} "
        f"of {len(trace)} requests were clipped"
    )
    prefix = trace.prefix
    if prefix is not None:
        # Behind a prompt that was cut short stands another answer than the session goes on with.
        answered = np.where(prompt_tokens < trace.prompt_tokens, 0, output_tokens)
        prefix = cut(prefix, trace.prompt_tokens, prompt_tokens + answered)
    return replace(
        trace,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        prefix=prefix,
        warnings=(*trace.warnings, warning),
    )


def _drop(trace: Trace, limit_tokens: int) -> Trace:
    fits = trace.prompt_tokens + trace.output_tokens <= limit_tokens
    keep = fits.copy()
    for row in np.flatnonzero(trace.after >= 0):
        keep[row] &= keep[trace.after[row]]
    require(bool(keep.any()), f"context limit of {limit_tokens} tokens: none of {len(trace)} requests fits")
    rows = np.flatnonzero(keep)
    orphans = int((fits & ~keep).sum())
    warning = f"context limit of {limit_tokens} tokens: {len(trace) - len(rows)} of {len(trace)} requests were dropped"
    if orphans:
        warning += f", {orphans} of them because an earlier turn was"
    return replace(take(trace, rows), warnings=(*trace.warnings, warning))
