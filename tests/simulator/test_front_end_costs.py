"""A front end in a simulation: requests reach the engine later, and their tokens the client later."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from l4sim.experiment import Options, resolve, run_policy
from l4sim.workload.trace import Trace


def lone(outputs: list[int], gap_s: float) -> Trace:
    count = len(outputs)
    nobody = np.full(count, -1)
    return Trace(
        "lone",
        tuple(str(row) for row in range(count)),
        np.arange(count) * gap_s,
        np.full(count, 100),
        np.array(outputs),
        nobody,
        nobody,
        np.full(count, np.nan),
    )


def served(trace: Trace, front_end: str) -> pd.DataFrame:
    options = Options(instances=1, profile="h100-sxm", cost_model="affine", front_end=front_end)
    return run_policy("round-robin", trace, resolve(options)).requests


def test_a_lone_requests_times_grow_by_what_it_passes_through() -> None:
    trace = lone([10, 1], gap_s=60.0)
    bare, behind = served(trace, "off"), served(trace, "5ms,10us,2ms")
    # 5 ms, 100 prompt tokens and the one token of the first iteration; the last token comes alone too.
    assert (behind["ttft_s"] - bare["ttft_s"]).tolist() == pytest.approx([8e-3, 8e-3])
    assert (behind["e2e_s"] - bare["e2e_s"]).tolist() == pytest.approx([7e-3, 8e-3])
    assert (behind["queue_s"] - bare["queue_s"]).tolist() == pytest.approx([6e-3, 6e-3])


def test_a_first_token_is_later_the_more_tokens_come_with_it() -> None:
    together = lone([50] * 8, gap_s=0.0)
    late_s = served(together, "0s,0s,1ms")["ttft_s"] - served(together, "off")["ttft_s"]
    assert late_s.max() == pytest.approx(8e-3)


def test_a_sessions_next_turn_waits_for_the_last_token_at_the_client() -> None:
    first = lone([10, 10], gap_s=0.0)
    turns = Trace(
        **{
            **{name: getattr(first, name) for name in ("name", "request_id", "prompt_tokens", "output_tokens")},
            "arrival_s": np.array([0.0, np.nan]),
            "session": np.zeros(2, dtype=np.int64),
            "after": np.array([-1, 0]),
            "delay_s": np.array([np.nan, 1.0]),
        }
    )
    rows = served(turns, "5ms,0s,2ms")
    assert rows["arrival_s"][1] == pytest.approx(rows["e2e_s"][0] + 1.0)
