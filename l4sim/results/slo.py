"""Service-level objectives: limits on percentiles over a run, and limits that a share of the requests must meet."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from l4sim.errors import InputError
from l4sim.results.metrics import LATENCIES, PERCENTILES, goodput_requests_per_s, slo_attainment
from l4sim.results.run import Run

SCALES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Multiples of the limits at which attainment is recorded."""
DEFAULT_ATTAINMENT = 0.9

_METRICS = {name.removesuffix("_s"): name for name in LATENCIES}
_WORDS = {
    "ttft_s": "TTFT",
    "tpot_s": "TPOT",
    "max_itl_s": "longest ITL",
    "e2e_s": "E2E",
    "queue_s": "queue time",
    "normalized_latency_s": "normalized latency",
}
_STATISTICS = ("mean", *(f"p{percent}" for percent in PERCENTILES), "max")
_PER_REQUEST = ("ttft", "tpot")
_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_ACCEPTED = (
    "ttft_p99=2s,tpot_p99=50ms (any of " + ", ".join(_METRICS) + " with " + ", ".join(_STATISTICS) + ") or "
    "ttft=2s,tpot=50ms,attainment=90%"
)


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that one statistic of a latency may be."""

    metric: str
    """A latency as `l4sim.results.metrics.summarise` names it, in seconds."""
    statistic: str
    limit_s: float


@dataclass(frozen=True, slots=True)
class SLO:
    """What a run must meet: every limit on a percentile, and enough requests within the limits on each one."""

    limits: tuple[Limit, ...]
    ttft_s: float | None
    tpot_s: float | None
    attainment: float
    """The share of all requests that must be within ``ttft_s`` and ``tpot_s``."""
    text: str
    """The SLO as the user wrote it."""

    @property
    def requests_description(self) -> str:
        """The limits on each request in words, such as ``TTFT ≤ 2 s and TPOT ≤ 50 ms``; empty if there are none."""
        given = (("TTFT", self.ttft_s), ("TPOT", self.tpot_s))
        return " and ".join(f"{name} ≤ {_time(limit_s)}" for name, limit_s in given if limit_s is not None)

    @property
    def description(self) -> str:
        """All of it in words, such as ``P99 TTFT ≤ 2 s, TPOT ≤ 50 ms for 90 % of requests``."""
        parts = [
            f"{limit.statistic.replace('p', 'P')} {_WORDS[limit.metric]} ≤ {_time(limit.limit_s)}"
            for limit in self.limits
        ]
        if self.requests_description:
            parts.append(f"{self.requests_description} for {100 * self.attainment:g} % of requests")
        return ", ".join(parts)

    def judge(self, run: Run, summary: dict[str, Any]) -> dict[str, Any]:
        """Whether a run meets the SLO, and, if there are limits per request, attainment and goodput.

        Returns ``meets_slo``; with per-request limits also ``slo_attainment``, ``slo_attainment_at_X`` for X times the
        limits and ``goodput_requests_per_s``. A run that rejected or lost a request misses limits on percentiles, which
        cover finished requests alone.
        """
        meets = not self.limits or summary["requests"]["finished"] == summary["requests"]["total"]
        # A run whose outputs are all of one token has no TPOT, and meets any limit on it.
        meets = meets and not any(summary[limit.metric][limit.statistic] > limit.limit_s for limit in self.limits)
        if self.ttft_s is None and self.tpot_s is None:
            return {"meets_slo": meets}
        share = slo_attainment(run, ttft_s=self.ttft_s, tpot_s=self.tpot_s)
        return {
            "meets_slo": meets and share >= self.attainment,
            "slo_attainment": share,
            "goodput_requests_per_s": goodput_requests_per_s(run, ttft_s=self.ttft_s, tpot_s=self.tpot_s),
            **{
                f"slo_attainment_at_{scale:g}": slo_attainment(
                    run, ttft_s=_scaled(self.ttft_s, scale), tpot_s=_scaled(self.tpot_s, scale)
                )
                for scale in SCALES
            },
        }


def parse_slo(text: str) -> SLO:
    """An SLO from text: ``ttft_p99=2s,tpot_p99=50ms``, or ``ttft=2s,tpot=50ms,attainment=90%``, or both together.

    Raises:
        InputError: an item that is neither, given twice, or not positive.
    """
    given: dict[str, str] = {}
    for item in text.split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals or name in given:
            what = "given twice" if name in given else "no NAME=LIMIT"
            raise InputError(f"SLO {text!r}: {item.strip()!r} is {what}; accepted is {_ACCEPTED}")
        given[name] = value
    attainment = given.pop("attainment", None)
    per_request = {name: _seconds(given.pop(name), text) for name in _PER_REQUEST if name in given}
    if attainment is not None and not per_request:
        raise InputError(f"SLO {text!r}: attainment is a share of requests within ttft=... or tpot=..., give one")
    if not per_request and not given:
        raise InputError(f"SLO {text!r} has no limit; accepted is {_ACCEPTED}")
    return SLO(
        limits=tuple(_limit(name, value, text) for name, value in given.items()),
        ttft_s=per_request.get("ttft"),
        tpot_s=per_request.get("tpot"),
        attainment=DEFAULT_ATTAINMENT if attainment is None else _share(attainment, text),
        text=text,
    )


def _limit(name: str, value: str, text: str) -> Limit:
    metric, _, statistic = name.rpartition("_")
    if metric not in _METRICS or statistic not in _STATISTICS:
        raise InputError(f"SLO {text!r}: no figure '{name}'; accepted is {_ACCEPTED}")
    return Limit(_METRICS[metric], statistic, _seconds(value, text))


def _seconds(value: str, text: str) -> float:
    match = re.fullmatch(r"([0-9.]+(?:e-?[0-9]+)?) *(us|ms|s|min)", value)
    seconds = _number(match[1]) * _UNITS_S[match[2]] if match else 0.0
    if not seconds > 0:
        raise InputError(f"SLO {text!r}: {value!r} is no positive time; accepted are a number and us, ms, s or min")
    return seconds


def _share(value: str, text: str) -> float:
    share = _number(value.removesuffix("%")) / 100 if value.endswith("%") else _number(value)
    if not 0 < share <= 1:
        raise InputError(f"SLO {text!r}: attainment {value!r} must be above 0 and at most 1, or 100%")
    return share


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return 0.0


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.4g} ms" if seconds < 1 else f"{seconds:.10g} s"


def _scaled(limit_s: float | None, scale: float) -> float | None:
    return None if limit_s is None else limit_s * scale
