"""Named length distributions: published fits of real traffic, and one mix of our own."""

from __future__ import annotations

from dataclasses import dataclass

from l4sim.workload.synth.checks import require
from l4sim.workload.synth.joint import Coupled
from l4sim.workload.synth.lengths import Lognormal, Mixture, Truncated


@dataclass(frozen=True, slots=True)
class Preset:
    """Lengths with a name and an origin."""

    lengths: Coupled
    description: str
    """One line: what kind of requests these are."""
    source: str
    """Where the parameters come from."""


PRESETS = {
    "chat": Preset(
        Coupled(Lognormal(8.74, 1.20), Lognormal(5.34, 1.36)),
        "chat with long prompts (median 6.2K prompt, 209 output tokens)",
        "fit to Mooncake's conversation trace (Qin et al., FAST 2025); independence of the two lengths is ours",
    ),
    "agentic-coding": Preset(
        Coupled(Lognormal(11.49, 0.67), Lognormal(5.56, 0.89)),
        "coding agents (median 98K prompt, 260 output tokens)",
        "fit to WEKA's agentic coding traces; independence of the two lengths is ours",
    ),
    "long-reasoning": Preset(
        Coupled(Lognormal(5.23, 1.84), Lognormal(6.78, 0.97), spearman=-0.38),
        "reasoning: short prompts, long outputs (median 187 prompt, 880 output tokens)",
        "fit to ServeGen's DeepSeek-R1 workload over 24 h (Xiang et al., arXiv 2505.09999)",
    ),
    "sharegpt-like": Preset(
        Coupled(Lognormal(4.238, 1.30), Lognormal(5.323, 1.00)),
        "short chat (mean 161 prompt, 338 output tokens)",
        "means of ShareGPT in vLLM's paper (Kwon et al., SOSP 2023, section 6.1); sigma and independence are ours",
    ),
    "long-context-mix": Preset(
        Coupled(
            Truncated(Mixture((Lognormal(7.1, 1.1), Lognormal(10.5, 0.9)), (0.7, 0.3)), 122_880),
            Truncated(Lognormal(6.0, 1.1), 8192),
        ),
        "70 % chat, 30 % long documents of up to 120K tokens; at most 128K with the output",
        "parameters are ours",
    ),
}


def preset(name: str) -> Preset:
    """The preset of that name; raises InputError listing the names where there is none."""
    require(name in PRESETS, f"unknown preset {name!r}; accepted: {', '.join(PRESETS)}")
    return PRESETS[name]
