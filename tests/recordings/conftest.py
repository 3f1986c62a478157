"""Recorded runs small enough to make by hand."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from l4sim.bundled import folder as bundled

Record = Callable[..., Path]

META: dict[str, Any] = {
    "schema_version": 1,
    "model": "meta-llama/Llama-3.1-8B",
    "vllm_version": "0.19.0",
    "engine_kwargs": {
        "tensor_parallel_size": 1,
        "data_parallel_size": 1,
        "max_num_seqs": 16,
        "max_num_batched_tokens": 2048,
        "max_model_len": None,
        "dtype": "bfloat16",
        "kv_cache_dtype": "auto",
    },
}


def request(number: int, **changes: Any) -> dict[str, Any]:
    """One request: 200 prompt and 101 output tokens, queued at its number, 50 ms to the first token and 10 ms each."""
    row = {
        "request_id": f"bench-{number}",
        "input_toks": 200,
        "output_toks": 101,
        "queued_ts": 1000.0 + number,
        "first_token_ts": 1000.05 + number,
        "last_token_ts": 1001.05 + number,
    }
    return {name: value for name, value in {**row, **changes}.items() if value is not ...}


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Write a folder; its profile is the bundled one, so that nothing need be fitted."""

    def write(
        requests: list[dict[str, Any]] | None = None,
        meta: dict[str, Any] | None = None,
        *,
        zipped: bool = False,
        profile: bool = True,
    ) -> Path:
        folder = tmp_path / "recorded"
        folder.mkdir(exist_ok=True)
        (folder / "meta.json").write_text(json.dumps(META if meta is None else meta))
        rows = [request(number) for number in range(4)] if requests is None else requests
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        if zipped:
            (folder / "requests.jsonl.gz").write_bytes(gzip.compress(text))
        else:
            (folder / "requests.jsonl").write_bytes(text)
        if profile:
            shutil.copytree(bundled("profiles") / "rtx-pro-6000", folder / "profile", dirs_exist_ok=True)
        return folder

    return write
