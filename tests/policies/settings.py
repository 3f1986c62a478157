"""Settings to build policies from, written down by hand."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import pytest

from l4sim.cost.affine import AffineCost
from l4sim.policies.plan import GivenPlan
from l4sim.policies.policy import InstanceFacts, Setting
from l4sim.policies.views import SOLE_KIND
from l4sim.workload.trace import PrefixBlocks, Trace

COST = AffineCost(
    base_s=0.008,
    per_sequence_s=1e-4,
    per_prefill_token_s=1e-4,
    per_context_token_s=3e-6,
    per_prefill_pair_s=1e-7,
)
FACTS = InstanceFacts(
    SOLE_KIND, COST, kv_tokens=16_000, max_num_seqs=16, max_num_batched_tokens=256, max_model_len=1000
)


def unasked(what: str) -> Any:
    """Something that nobody is to ask for."""

    def asked(*arguments: object) -> NoReturn:
        pytest.fail(f"asked for {what}")

    return asked


def setting(instances: int = 4, **changes: Any) -> Setting:
    """A setting that gives instances, and what else is named; nobody is to ask for the rest."""
    known = {
        "fleet": (FACTS,) * instances,
        "seed": 0,
        "sample": unasked("a sample"),
        "histogram": None,
        "prefix_id_tokens": 16,
        "follow_prefixes": False,
        "output_tokens": unasked("true output lengths"),
        "plans": GivenPlan(unasked("a plan")),
    }
    return Setting(**(known | changes))


def sample(prompt_tokens: Any, output_tokens: Any, arrival_s: Any = None, prefix: PrefixBlocks | None = None) -> Trace:
    """Open-loop requests, one a second unless their arrivals are given."""
    count = len(prompt_tokens)
    return Trace(
        "sample",
        tuple(map(str, range(count))),
        np.arange(count, dtype=np.float64) if arrival_s is None else np.asarray(arrival_s, dtype=np.float64),
        np.asarray(prompt_tokens, dtype=np.int64),
        np.asarray(output_tokens, dtype=np.int64),
        np.full(count, -1),
        np.full(count, -1),
        np.full(count, np.nan),
        prefix,
    )
