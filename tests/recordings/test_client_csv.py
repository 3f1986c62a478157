"""Runs as clients saw them: what a row means, what stands for what is missing, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l4sim.errors import InputError
from l4sim.recordings.formats import FORMATS, read_recording
from l4sim.recordings.replay import validate_vllm

HEADER = "index,arrival_s,prompt_tokens,output_tokens,prompt_group,ttft_s,e2e_s,status"
META: dict[str, Any] = {
    "gpu": "h100-sxm",
    "model": "meta-llama/Llama-2-7b-hf",
    "engine": "vLLM (a fork of 0.15.1; the runs state no version)",
    "model_config": {
        "num_layers": 32,
        "hidden_dim": 4096,
        "num_heads": 32,
        "num_kv_heads": 32,
        "intermediate_dim": 11008,
        "num_local_experts": 0,
        "vocab_size": 32000,
    },
    "tensor_parallel_size": 1,
    "max_model_len": 4096,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 2048,
    "kv_cache": {"num_gpu_blocks": 1000, "block_size": 16},
}
ROWS = ("0,0.0,100,11,0,0.05,0.15,ok", "1,1.5,100,11,1,0.05,0.25,ok", "2,3.0,100,11,0,0.05,0.15,ok")


def recorded(folder: Path, *rows: str, header: str = HEADER, **meta: Any) -> Path:
    (folder / "meta.json").write_text(json.dumps(META | meta))
    (folder / "requests.csv.gz").write_bytes(gzip.compress("\n".join((header, *rows, "")).encode()))
    return folder


def test_latencies_are_the_clients(tmp_path: Path) -> None:
    found = read_recording(recorded(tmp_path, *ROWS))
    assert found.measured_at == "client"
    assert found.requests.arrival_s.tolist() == [0.0, 1.5, 3.0]
    assert found.requests.ttft_s.tolist() == [0.05] * 3
    assert found.requests.tpot_s == pytest.approx([0.01, 0.02, 0.01])


def test_the_engine_is_the_one_in_meta_json(tmp_path: Path) -> None:
    found = read_recording(recorded(tmp_path, *ROWS))
    engine = found.engine
    assert (engine.version, engine.device, engine.kv_blocks, engine.max_num_seqs) == ("0.15.1", "h100-sxm", 999, 16)
    assert found.model is not None
    assert (found.model.name, found.model.layers) == ("llama-2-7b-hf", 32)


def test_requests_of_a_group_share_their_prompt_and_others_nothing(tmp_path: Path) -> None:
    rows = (*ROWS, "3,4.0,90,11,0,0.05,0.15,ok", "4,5.0,100,11,,0.05,0.15,ok", "5,6.0,100,11,,0.05,0.15,ok")
    prefix = read_recording(recorded(tmp_path, *rows)).requests.prefix
    assert prefix is not None
    first, other, same, shorter, *alone = (
        prefix.ids[start:end].tolist() for start, end in zip(prefix.offsets, prefix.offsets[1:], strict=False)
    )
    assert len(first) == 7
    assert same == first
    assert shorter == first[:6]
    assert len({*first, *other, *alone[0], *alone[1]}) == 28


def test_without_groups_nothing_is_known_of_prefixes(tmp_path: Path) -> None:
    rows = [",".join((*row.split(",")[:4], *row.split(",")[5:])) for row in ROWS]
    found = read_recording(recorded(tmp_path, *rows, header=HEADER.replace("prompt_group,", "")))
    assert found.requests.prefix is None


def test_a_request_that_was_given_up_is_replayed_and_not_compared(tmp_path: Path) -> None:
    gave_up = "3,3.5,0,0,1,,,error"
    found = read_recording(recorded(tmp_path, *ROWS, gave_up)).requests
    # Its lengths are its group's.
    assert (found.prompt_tokens[3], found.output_tokens[3]) == (100, 11)
    assert np.isnan([found.ttft_s[3], found.tpot_s[3], found.e2e_s[3]]).all()
    validated = validate_vllm(tmp_path)
    assert len(validated.run.requests) == 4
    assert validated.figures[0].measured == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0,0.0,100,11,0,,0.15,ok", r"line 2, field 'ttft_s' is missing; expected a number of seconds >= 0"),
        ("0,0.0,0,11,0,0.05,0.15,ok", r"line 2, field 'prompt_tokens': '0' is not accepted; expected 1 token or more"),
        ("0,0.0,100,11,0,0.25,0.15,ok", r"line 2, field 'e2e_s': '0.15' is not accepted; expected ttft_s or more"),
        ("0,-1,100,11,0,0.05,0.15,ok", r"line 2, field 'arrival_s': '-1' is not accepted"),
        ("0,0.0,0,0,0,,,error", r"no request was served"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_recording(recorded(tmp_path, row))


def test_a_mixture_of_experts_is_refused(tmp_path: Path) -> None:
    shape = META["model_config"] | {"num_local_experts": 8}
    with pytest.raises(InputError, match="num_local_experts means mixture of experts"):
        read_recording(recorded(tmp_path, *ROWS, model_config=shape))


def test_a_folder_of_no_known_form_is_told_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recorded run is in it: accepted are") as refused:
        read_recording(tmp_path)
    assert all(form.name in str(refused.value) for form in FORMATS)
    with pytest.raises(InputError, match="no such folder"):
        read_recording(tmp_path / "elsewhere")
