"""The cases: those to develop on, and those that no constant was chosen on.

Nothing may be chosen by the test cases: who has looked at their figures and then changes a policy needs new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from benchmarks.rivals.traffic import Recorded, Synthetic

Knowledge = Literal["", "prompts dear", "prompts cheap", "another day"]
"""What policies are told wrongly: the seconds of prompts 20 % too high and those of decoding 20 % too low, the other
way around, or a plan's sample of another day. The engine's own seconds are as ever."""


@dataclass(frozen=True)
class Case:
    """One kind of traffic on one cluster, over seeds or stretches of a trace."""

    name: str
    traffic: Synthetic | Recorded
    load: float
    """Share of time that instances are busy (`at_load`)."""
    seeds: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `l4sim.experiment.Options`."""
    fail_at: float | None = None
    """Instance 1 dies after this share of the arrivals' time."""
    knowledge: Knowledge = ""


def lognormal(sigma: float, requests: int) -> Synthetic:
    """Prompts of 4,000 and answers of 300 tokens on average, prompts with this spread."""
    output_sigma = min(sigma, 1.0)
    return Synthetic(
        requests,
        prompt_lengths=f"lognormal:mu={8.2940 - sigma**2 / 2:.4f},sigma={sigma},max=100000",
        output_lengths=f"lognormal:mu={5.7038 - output_sigma**2 / 2:.4f},sigma={output_sigma},max=4000",
    )


MODERATE, HIGH = 0.5, 0.75
_STRETCHES = (0, 1, 2, 3, 4)

# What this project's constants were chosen on before there was a test set.
DEVELOPMENT: tuple[Case, ...] = (
    *(
        Case(f"lognormal {sigma}, load {load}", lognormal(sigma, 2400), load, (1, 2, 3, 4, 5), {"instances": 8})
        for sigma, load in product((0.3, 0.8, 1.2, 1.8), (MODERATE, HIGH))
    ),
    *(
        Case(
            f"{lengths}, load {load}",
            Synthetic(1800, lengths=lengths),
            load,
            (20, 21, 22, 23, 24),
            {"instances": 16 if lengths == "long-context-mix" else 8},
        )
        for lengths, load in product(("long-context-mix", "chat"), (MODERATE, HIGH))
    ),
    *(
        Case(f"mooncake synthetic, load {load}", Recorded("mooncake_synthetic.jsonl.gz", 790, dejitter_s=3.0), load,
             _STRETCHES, {"instances": 8})
        for load in (MODERATE, HIGH)
    ),
    *(
        Case(f"{name}, load {load}", Recorded(file, requests), load, _STRETCHES, {"instances": 8})
        for name, requests, file in (
            ("azure conversation", 2000, "azure_2023_conv.csv.gz"),
            ("azure code", 900, "azure_2023_code.csv.gz"),
            ("deepseek-r1 peak", 2000, "servegen_deepseek_r1_peak20min_sampled.csv.gz"),
            ("arxiv", 2000, "vidur_arxiv_summarization.csv.gz"),
        )
        for load in (MODERATE, HIGH)
    ),
    Case("sessions, load 0.6", Synthetic(700, lengths="chat", turns=4.0,
         parameters={"think_s_mean": 5.0, "system_tokens": 1024}), 0.6, (30, 31, 40, 41, 42), {"instances": 5}),
    Case("long sessions, load 0.5", Synthetic(500, lengths="long-context-mix", turns=5.0,
         parameters={"think_s_mean": 5.0, "system_tokens": 1024}), 0.5, (30, 31, 40, 41, 42), {"instances": 8}),
    Case("weka agents, first part", Recorded("weka_agentic_mooncake512_dev.jsonl.gz", 400), 0.4, _STRETCHES[:4],
         {"instances": 8, "profile": "h200-sxm"}),
)  # fmt: skip

_SEEDS = (101, 102, 103, 104, 105)
_AGENTS = Synthetic(1200, lengths="chat", turns=4.0, parameters={"think_s_mean": 5.0, "system_tokens": 1024})
_BURSTS = Synthetic(2000, lengths="chat", arrivals="gamma", parameters={"cv": 3.0})
_DIURNAL = Synthetic(
    2000, lengths="chat", arrivals="diurnal", parameters={"period_s": 500.0, "peak_s": 250.0, "amplitude": 0.6}
)
_WEKA = Recorded("weka_agentic_mooncake512_dev.jsonl.gz", 400, first=2000)
_DAY = Recorded("servegen_deepseek_r1_24h_thin16_sampled.csv.gz", 2000, first=10_000)

TEST: tuple[Case, ...] = (
    # Sizes, kernels, models and GPUs.
    *(
        Case(f"long mix on {instances}, {profile}", Synthetic(220 * instances + 200, lengths="long-context-mix"), 0.6,
             _SEEDS, {"instances": instances, "profile": profile})
        for instances, profile in product((5, 12), ("h200-flashinfer", "h200-sxm", "h100-sxm"))
    ),
    Case("long mix on 40", Synthetic(6000, lengths="long-context-mix"), 0.6, _SEEDS, {"instances": 40}),
    *(
        Case(f"lognormal {sigma} on {instances}, {profile}", lognormal(sigma, 320 * instances), 0.65, _SEEDS,
             {"instances": instances, "profile": profile})
        for sigma, instances, profile in (
            (1.5, 5, "h200-flashinfer"), (1.0, 12, "h200-sxm"), (2.2, 12, "h200-flashinfer")
        )
    ),
    *(
        Case(f"{lengths} with qwen3-32b, {profile}", Synthetic(requests, lengths=lengths), 0.6, _SEEDS,
             {"instances": 8, "model": "qwen3-32b", "profile": profile, "tensor_parallel": 2})
        for lengths, requests, profile in (("sharegpt-like", 3000, "h200-flashinfer"), ("chat", 1200, "h200-sxm"))
    ),
    # Arrivals.
    Case("bursts of chat", _BURSTS, 0.6, _SEEDS, {"instances": 12}),
    Case("bursts of chat on FA3", _BURSTS, 0.6, _SEEDS, {"instances": 5, "profile": "h200-sxm"}),
    Case("chat by day and night", _DIURNAL, 0.5, _SEEDS, {"instances": 12}),
    Case("reasoning", Synthetic(1500, lengths="long-reasoning"), 0.6, _SEEDS, {"instances": 5}),
    # Prefixes.
    Case("sessions", _AGENTS, 0.6, _SEEDS, {"instances": 5}),
    Case("sessions on FA3", _AGENTS, 0.6, _SEEDS, {"instances": 12, "profile": "h200-sxm"}),
    *(
        Case(f"weka agents on {instances}, {profile}", _WEKA, load, _STRETCHES,
             {"instances": instances, "profile": profile})
        for instances, load, profile in ((5, 0.3, "h200-flashinfer"), (12, 0.4, "h200-sxm"))
    ),
    Case("weka agents, no prefix caching", Recorded(_WEKA.file, 200, first=4500), 0.5, _STRETCHES,
         {"instances": 12, "prefix_caching": False}),
    # Recorded traces, the last parts of those that were developed on among them.
    Case("deepseek-r1 by day", _DAY, 0.6, _STRETCHES, {"instances": 12}),
    Case("deepseek-r1 by day, h100", _DAY, 0.75, (10, 11, 12, 13, 14), {"instances": 5, "profile": "h100-sxm"}),
    Case("azure code, last part", Recorded("azure_2023_code.csv.gz", 860, first=4500), 0.6, _STRETCHES,
         {"instances": 12}),
    Case("azure conversation, last part", Recorded("azure_2023_conv.csv.gz", 1800, first=10_000), 0.7, _STRETCHES,
         {"instances": 5}),
    Case("lmsys", Recorded("apex_llama_lmsys_05.jsonl.gz", 1024), 0.7, (0,), {"instances": 5, "profile": "h100-sxm"}),
    # Stale counts, failures.
    *(
        Case(f"long mix, counts {age_s:g} s old", Synthetic(2000, lengths="long-context-mix"), 0.6, _SEEDS,
             {"instances": 12, "view_age_s": age_s})
        for age_s in (0.5, 5.0)
    ),
    Case("long mix, one of 12 fails", Synthetic(2000, lengths="long-context-mix"), 0.5, _SEEDS, {"instances": 12},
         fail_at=0.4),
    # What policies reckon with is wrong.
    *(
        Case(f"long mix, {knowledge}", Synthetic(2000, lengths="long-context-mix"), 0.6, _SEEDS, {"instances": 12},
             knowledge=knowledge)
        for knowledge in ("prompts dear", "prompts cheap")
    ),
    Case("deepseek-r1, a plan from another day", _DAY, 0.6, (15, 16, 17, 18, 19), {"instances": 12},
         knowledge="another day"),
)  # fmt: skip

SETS: Mapping[str, tuple[Case, ...]] = {"development": DEVELOPMENT, "test": TEST}
