"""What load generators' reports have in common: requests as their clients saw them, and nothing of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from l4sim.errors import InputError
from l4sim.recordings.recording import EngineOptions, RecordedRequests, Recording
from l4sim.specs.engine_defaults import nearest_rules
from l4sim.specs.options import DEFAULTS


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """One request; times in seconds. Of one that failed lengths are known or 0, and latencies do not count."""

    request_id: str
    sent_s: float
    """On the tool's clock."""
    prompt_tokens: int
    output_tokens: int
    ttft_s: float
    e2e_s: float
    served: bool = True


def client_recording(path: Path, rows: Sequence[ClientRequest], model: str | None) -> Recording:
    """A recording of these requests; what is not known of the engine is vLLM's default, or has to be given.

    ``model`` is what the tool asked for: the name under which the model was served.

    Raises:
        InputError: no request was served, or one of those that were has no tokens or ends before its first token.
    """
    served = [row for row in rows if row.served]
    if not served:
        raise InputError(f"{path}: no request was served, accepted is one or more")
    for row in served:
        if row.prompt_tokens < 1 or row.output_tokens < 1:
            raise InputError(
                f"{path}: request {row.request_id} has {row.prompt_tokens} prompt and {row.output_tokens} output "
                "tokens, accepted is 1 or more of each"
            )
        if not 0 < row.ttft_s <= row.e2e_s:
            raise InputError(
                f"{path}: request {row.request_id} took {row.ttft_s} s to its first token and {row.e2e_s} s in all, "
                "accepted are streamed answers: more than 0, and not more than in all"
            )
    ordered = sorted(rows, key=lambda row: row.sent_s)
    sent_s, ttft_s, e2e_s = (
        np.array([getattr(row, name) for row in ordered], dtype=np.float64) for name in ("sent_s", "ttft_s", "e2e_s")
    )
    # A request that failed was there all the same: where its lengths are not known, it is as long as most.
    prompt, output = (
        np.array([getattr(row, name) or int(np.median([getattr(one, name) for one in served])) for row in ordered])
        for name in ("prompt_tokens", "output_tokens")
    )
    counts = np.where([row.served for row in ordered], 0.0, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot_s = np.where(output > 1, (e2e_s - ttft_s) / (output - 1), np.nan)
    requests = RecordedRequests(
        tuple(row.request_id for row in ordered),
        sent_s - sent_s[0],
        prompt,
        output,
        ttft_s + counts,
        tpot_s + counts,
        e2e_s + counts,
    )
    return Recording(path, _unknown_engine(model), requests, measured_at="client")


def _unknown_engine(model: str | None) -> EngineOptions:
    rules, rules_note = nearest_rules(None)
    return EngineOptions(
        model=model or "",
        device=None,
        engine_rules=rules,
        rules_note=rules_note,
        max_num_seqs=None,
        max_num_batched_tokens=None,
        max_model_len=None,
        tensor_parallel=DEFAULTS.tensor_parallel,
        kv_blocks=None,
        block_tokens=DEFAULTS.block_size,
        gpu_memory_utilization=DEFAULTS.gpu_memory_utilization,
        prefix_caching=DEFAULTS.prefix_caching,
        reserve_full_prompt=DEFAULTS.reserve_full_prompt,
        async_scheduling=DEFAULTS.async_scheduling,
        scheduling_policy=DEFAULTS.scheduling_policy,
        long_prefill_token_threshold=DEFAULTS.long_prefill_token_threshold,
    )


@lru_cache(maxsize=1)
def decoded(path: Path) -> Any:
    """The JSON in a file; None where it holds none. Several formats ask for the same one, to recognise it."""
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def own_file(path: Path, name: str) -> Path:
    """The file itself, or the one of this name in a folder."""
    return path / name if path.is_dir() else path
