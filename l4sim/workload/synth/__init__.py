"""Synthetic traces: arrivals, lengths and sessions from published or given parameters and a seed."""

from l4sim.workload.synth.arrivals import AtOnce, Constant, Diurnal, Gamma, OnOff, Piecewise, Poisson, Weibull
from l4sim.workload.synth.joint import Bootstrap, Coupled
from l4sim.workload.synth.lengths import (
    Fixed,
    Lognormal,
    LognormalPareto,
    Mixture,
    QuantileTable,
    Truncated,
    Uniform,
    Zipf,
)
from l4sim.workload.synth.limits import limit_context
from l4sim.workload.synth.make import synthesize
from l4sim.workload.synth.presets import PRESETS, Preset, preset
from l4sim.workload.synth.sessions import Sessions

__all__ = [
    "PRESETS",
    "AtOnce",
    "Bootstrap",
    "Constant",
    "Coupled",
    "Diurnal",
    "Fixed",
    "Gamma",
    "Lognormal",
    "LognormalPareto",
    "Mixture",
    "OnOff",
    "Piecewise",
    "Poisson",
    "Preset",
    "QuantileTable",
    "Sessions",
    "Truncated",
    "Uniform",
    "Weibull",
    "Zipf",
    "limit_context",
    "preset",
    "synthesize",
]
