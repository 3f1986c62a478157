"""Length distributions and rate segments as text.

A distribution is ``NAME:KEY=VALUE,...``; ``max=TOKENS`` truncates it, and several with weights make a mixture::

    lognormal:mu=6,sigma=1.1,max=8192
    0.7*lognormal:mu=7,sigma=1+0.3*lognormal-pareto:mu=9,sigma=0.5,tail_share=0.1,alpha=1.5
    quantiles:0=1,0.5=300,0.99=8000,1=32768

Segments of a piecewise-constant rate are ``SECONDS:RATE,...``, as in ``600:5,60:40``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields

from l4sim.errors import InputError
from l4sim.workload.synth.checks import require
from l4sim.workload.synth.lengths import (
    Fixed,
    Lengths,
    Lognormal,
    LognormalPareto,
    Mixture,
    QuantileTable,
    Truncated,
    Uniform,
    Zipf,
)

_BY_PARAMETERS: dict[str, Callable[..., Lengths]] = {
    "fixed": Fixed,
    "lognormal": Lognormal,
    "lognormal-pareto": LognormalPareto,
    "zipf": Zipf,
    "uniform": Uniform,
}
LENGTH_NAMES = (*_BY_PARAMETERS, "quantiles")
"""The distributions that have a name in text."""

# A plus sign joins two distributions where a name and its colon follow; it may also belong to a number (1e+5).
_JOIN = re.compile(r"\+(?=[^,+:]*:)")


def parse_lengths(text: str) -> Lengths:
    """The distribution that ``text`` describes; raises InputError quoting the part that it cannot be."""
    parts, weights = [], []
    for part in _JOIN.split(text):
        weight, star, distribution = part.rpartition("*")
        weights.append(_number(weight, f"the weight in {part!r}") if star else None)
        parts.append(_parse_one(distribution.strip()))
    if weights == [None]:
        return parts[0]
    require(None not in weights, f"every part of the mixture {text!r} needs a weight, as in 0.7*lognormal:...")
    return Mixture(tuple(parts), tuple(weight for weight in weights if weight is not None))


def parse_segments(text: str) -> tuple[tuple[float, float], ...]:
    """(seconds, requests per second) of each segment; raises InputError quoting the segment that is none."""
    segments = []
    for segment in text.split(","):
        seconds, colon, rate = segment.partition(":")
        require(bool(colon), f"segment {segment!r} must be SECONDS:RATE")
        segments.append((_number(seconds, f"the seconds in {segment!r}"), _number(rate, f"the rate in {segment!r}")))
    return tuple(segments)


def _parse_one(text: str) -> Lengths:
    name, _, parameters = text.partition(":")
    require(
        name in LENGTH_NAMES, f"unknown length distribution {name!r} in {text!r}; accepted: {', '.join(LENGTH_NAMES)}"
    )
    values: dict[str, float] = {}
    for parameter in filter(None, parameters.split(",")):
        key, equals, value = parameter.partition("=")
        require(bool(equals), f"{parameter!r} in {text!r} must be KEY=VALUE")
        require(key not in values, f"{key!r} is given twice in {text!r}")
        values[key] = _number(value, f"{key} in {text!r}")
    max_tokens = values.pop("max", None)
    lengths = _quantile_table(values, text) if name == "quantiles" else _by_parameters(name, values, text)
    return lengths if max_tokens is None else Truncated(lengths, max_tokens)


def _by_parameters(name: str, values: dict[str, float], text: str) -> Lengths:
    make = _BY_PARAMETERS[name]
    accepted = [field.name for field in fields(make)]  # type: ignore[arg-type]
    require(
        set(values) == set(accepted),
        f"{text!r}: {name} takes {', '.join(accepted)} (and max), not {', '.join(values) or 'nothing'}",
    )
    return make(**values)


def _quantile_table(values: dict[str, float], text: str) -> QuantileTable:
    probabilities = tuple(_number(key, f"the probability {key!r} in {text!r}") for key in values)
    return QuantileTable(probabilities, tuple(values.values()))


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{what} must be a number, not {text!r}") from None
