"""Synthetic traces: arrivals, lengths and sessions from published or given parameters and a seed."""

from l4sim.workload.synth.arrivals import Constant, Diurnal, Gamma, OnOff, Piecewise, Poisson, Weibull
from l4sim.workload.synth.joint import Bootstrap, Coupled
from l4sim.workload.synth.lengths import Fixed, Lognormal, LognormalPareto, Mixture, QuantileTable, Truncated, Zipf
from l4sim.workload.synth.limits import limit_context
from l4sim.workload.synth.make import synthesize
from l4sim.workload.synth.presets import PRESETS, Preset, preset
from l4sim.workload.synth.sessions import Sessions

__all__ = [
    "PRESETS",
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
    "Weibull",
    "Zipf",
    "limit_context",
    "preset",
    "synthesize",
]
