"""Synthetic traces from plain values: names and numbers, as a command line, a grid or a notebook gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, replace
from typing import Any, Literal

from l4sim.errors import InputError
from l4sim.workload.synth.arrivals import Arrivals, AtOnce, Constant, Diurnal, Gamma, OnOff, Piecewise, Poisson, Weibull
from l4sim.workload.synth.joint import Bootstrap, Coupled, JointLengths
from l4sim.workload.synth.make import synthesize
from l4sim.workload.synth.parse import parse_lengths, parse_segments
from l4sim.workload.synth.presets import PRESETS, preset
from l4sim.workload.synth.sessions import Sessions
from l4sim.workload.trace import Trace
from l4sim.workload.transform import with_concurrency

ARRIVALS: dict[str, Any] = {
    "poisson": Poisson,
    "constant": Constant,
    "gamma": Gamma,
    "weibull": Weibull,
    "onoff": OnOff,
    "diurnal": Diurnal,
    "piecewise": Piecewise,
    "at-once": AtOnce,
}
_SESSION_FIELDS = ("think_s_mean", "system_tokens", "block_tokens")
_ARRIVAL_FIELDS = tuple(dict.fromkeys(field.name for kind in ARRIVALS.values() for field in fields(kind)))
PARAMETERS = (*_ARRIVAL_FIELDS, *_SESSION_FIELDS)
"""Fields of arrival processes and of sessions: what `synthesize_named` takes as ``parameters``."""


def synthesize_named(
    *,
    lengths: str | None = None,
    prompt_lengths: str | None = None,
    output_lengths: str | None = None,
    lengths_from: Callable[[], Trace] | None = None,
    correlation: float | None = None,
    requests: int | None = None,
    duration_s: float | None = None,
    arrivals: str | None = None,
    concurrency: int | None = None,
    turns: float | None = None,
    max_model_len: int | None = None,
    over_limit: Literal["clip", "drop"] | None = None,
    seed: int = 0,
    parameters: Mapping[str, Any],
    spelling: Mapping[str, str] | None = None,
) -> Trace:
    """Make a trace; the same arguments give the same trace.

    Lengths come from a preset's name (``lengths``), from two distributions as text (see `parse_lengths`), or from the
    rows of another trace, which ``lengths_from`` loads. ``arrivals`` is a process (default: Poisson), in place of which
    ``concurrency`` makes a closed loop of so many requests, or sessions, at a time. ``parameters`` holds what the
    arrival process takes (``rate_per_s``, ...) and what sessions take, None for what was not given. ``spelling``: for
    messages, what the user calls an argument (``--rate`` for ``rate_per_s``).

    Raises:
        InputError: arguments that are missing, unknown, out of range or do not go together.
    """
    spell = _Spelling(spelling or {})
    unknown = [name for name in parameters if name not in PARAMETERS]
    if unknown:
        raise InputError(f"no parameter {unknown[0]!r} of a synthetic trace: accepted are {', '.join(PARAMETERS)}")
    if over_limit is not None and max_model_len is None:
        raise InputError(f"{spell('over_limit')} applies only with {spell('max_model_len')}")
    if (requests is None) == (duration_s is None):
        raise InputError(f"give either {spell('requests')} or {spell('duration_s')}")
    given = {name: value for name, value in parameters.items() if value is not None}
    of_sessions = {name: given.pop(name) for name in _SESSION_FIELDS if name in given}
    if concurrency is not None:
        timed = [name for name in given if name in _ARRIVAL_FIELDS] + ["arrivals"] * (arrivals is not None)
        if timed:
            raise InputError(f"{spell(timed[0])} and {spell('concurrency')} exclude one another")
        arrivals = "at-once"
    trace = synthesize(
        _lengths(lengths, prompt_lengths, output_lengths, lengths_from, correlation, spell),
        _arrivals(arrivals or "poisson", given, spell),
        requests=requests,
        duration_s=duration_s,
        sessions=_sessions(turns, of_sessions, spell),
        limit_tokens=max_model_len,
        over_limit=over_limit or "clip",
        seed=seed,
        name=lengths or "synthetic",
    )
    return trace if concurrency is None else with_concurrency(trace, concurrency)


class _Spelling(dict[str, str]):
    """What the user calls each argument; the argument's own name if nothing else is given."""

    def __call__(self, name: str) -> str:
        return self.get(name, name)


def _arrivals(process: str, given: dict[str, Any], spell: _Spelling) -> Arrivals:
    if process not in ARRIVALS:
        raise InputError(f"no arrival process '{process}': accepted are {', '.join(ARRIVALS)}")
    accepted = {field.name: field for field in fields(ARRIVALS[process])}
    options = ", ".join(map(spell, accepted))
    for name in given:
        if name not in accepted:
            raise InputError(f"{spell(name)} does not apply to {process} arrivals, which take {options}")
    for name, field in accepted.items():
        if name not in given and field.default is MISSING:
            raise InputError(f"{process} arrivals need {spell(name)}; they take {options}")
    if isinstance(given.get("segments"), str):
        given["segments"] = parse_segments(given["segments"])
    arrivals: Arrivals = ARRIVALS[process](**given)
    return arrivals


def _lengths(
    name: str | None,
    prompt: str | None,
    output: str | None,
    lengths_from: Callable[[], Trace] | None,
    correlation: float | None,
    spell: _Spelling,
) -> JointLengths:
    if lengths_from is not None:
        others = {"lengths": name, "prompt_lengths": prompt, "output_lengths": output, "correlation": correlation}
        for other, value in others.items():
            if value is not None:
                raise InputError(f"{spell(other)} does not apply with {spell('lengths_from')}, which draws whole rows")
        return Bootstrap.of(lengths_from())
    if name is not None:
        lengths = preset(name).lengths
    elif prompt is not None and output is not None:
        lengths = Coupled(parse_lengths(prompt), parse_lengths(output))
    else:
        raise InputError(
            f"give {spell('lengths')} ({', '.join(PRESETS)}), or both {spell('prompt_lengths')} and "
            f"{spell('output_lengths')}, or {spell('lengths_from')}"
        )
    return replace(
        lengths,
        prompt=lengths.prompt if prompt is None else parse_lengths(prompt),
        output=lengths.output if output is None else parse_lengths(output),
        spearman=lengths.spearman if correlation is None else correlation,
    )


def _sessions(turns: float | None, given: dict[str, Any], spell: _Spelling) -> Sessions | None:
    if turns is None:
        for name in given:
            raise InputError(f"{spell(name)} applies only to sessions: give {spell('turns')} as well")
        return None
    if "think_s_mean" not in given:
        raise InputError(f"sessions need {spell('think_s_mean')}, the mean seconds from an answer to the next turn")
    return Sessions(turns_mean=turns, **given)
