"""Every answer of FlashInfer's own C++ planner, entry by entry and field by field.

`L4SIM_GOLDEN` names another file of answers to check.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from l4sim.kernels.flashinfer import plan_batch_attention, plan_cuda_core, plan_tensor_core


@pytest.fixture(scope="module")
def entries(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    given = os.environ.get("L4SIM_GOLDEN")
    path = Path(given) if given else request.getfixturevalue("shared") / "golden" / "flashinfer_plan.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def having(entries: list[dict[str, Any]], planner: str) -> list[dict[str, Any]]:
    found = [entry for entry in entries if planner in entry]
    assert found, f"no golden answer has {planner}"
    return found


def test_cuda_core_decode_splits_as_flashinfer_does(entries: list[dict[str, Any]]) -> None:
    for entry in having(entries, "cuda_core"):
        expected = entry["cuda_core"]
        plan = plan_cuda_core(
            entry["kv_lens"],
            kv_heads=entry["num_kv_heads"],
            page_tokens=entry["page_size"],
            sms=entry["num_sms"],
            blocks_per_sm=expected["blocks_per_sm"],
        )
        answer = {
            "blocks_per_sm": expected["blocks_per_sm"],
            "split": plan.split,
            "chunk_tokens": plan.chunk_tokens,
            "num_chunks": plan.chunks,
        }
        assert answer == expected, f"entry {entry['id']}"


def test_tensor_core_decode_splits_as_flashinfer_does(entries: list[dict[str, Any]]) -> None:
    for entry in having(entries, "tensor_core"):
        plan = plan_tensor_core(
            entry["kv_lens"],
            kv_heads=entry["num_kv_heads"],
            group_size=entry["group_size"],
            head_dim=entry["head_dim"],
            page_tokens=entry["page_size"],
            sms=entry["num_sms"],
        )
        answer = {
            "split": plan.split,
            "chunk_tokens": plan.chunk_tokens,
            "num_chunks": plan.chunks,
            "tile_q": plan.tile_q,
        }
        assert answer == entry["tensor_core"], f"entry {entry['id']}"


@pytest.mark.slow
def test_batch_attention_loads_its_clusters_as_flashinfer_does(entries: list[dict[str, Any]]) -> None:
    for entry in having(entries, "batch_attention"):
        plan = plan_batch_attention(
            entry["kv_lens"],
            kv_heads=entry["num_kv_heads"],
            group_size=entry["group_size"],
            head_dim=entry["head_dim"],
            sms=entry["num_sms"],
        )
        answer = {
            "chunk_tokens": plan.chunk_tokens,
            "num_work_items": plan.work_items,
            "max_cta_tokens": plan.busiest_tokens,
            "mean_cta_tokens": round(plan.mean_tokens, 1),
        }
        assert answer == entry["batch_attention"], f"entry {entry['id']}"
