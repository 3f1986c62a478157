from __future__ import annotations

import gzip
import importlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from l4sim.errors import InputError
from l4sim.runtime.trace_requests import TraceRequests
from l4sim.workload.load import load_trace
from l4sim.workload.save import save_trace
from tests.workload.trace_examples import EXAMPLES

MOONCAKE = EXAMPLES["mooncake"].text
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n"


def write(tmp_path: Path, text: str, name: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_gzipped_file_reads_like_the_plain_one(tmp_path: Path) -> None:
    for name, example in EXAMPLES.items():
        plain = write(tmp_path, example.text, f"{name}{example.suffix}")
        packed = tmp_path / f"{name}{example.suffix}.gz"
        packed.write_bytes(gzip.compress(example.text.encode()))
        assert load_trace(packed).prompt_tokens.tolist() == load_trace(plain).prompt_tokens.tolist()


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    for name in ("vidur", "mooncake"):
        example = EXAMPLES[name]
        path = tmp_path / f"windows{example.suffix}"
        path.write_bytes(b"\xef\xbb\xbf" + example.text.replace("\n", "\r\n").encode())
        assert len(load_trace(path)) == 2


def test_json_may_be_lines_an_array_or_one_object_over_many_lines(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in MOONCAKE.splitlines()]
    assert len(load_trace(write(tmp_path, json.dumps(rows), "compact.json"))) == 2
    assert len(load_trace(write(tmp_path, json.dumps(rows, indent=2), "spread.jsonl"))) == 2
    assert len(load_trace(write(tmp_path, MOONCAKE, "lines.json"))) == 2
    session = json.loads(EXAMPLES["weka"].text)
    assert len(load_trace(write(tmp_path, json.dumps(session, indent=2), "session.json"))) == 3


def test_a_public_format_may_come_as_parquet(tmp_path: Path) -> None:
    dates = np.array(["2023-11-16T18:17:03.979960", "2023-11-16T18:17:04.031960"], dtype="M8[us]")
    pq.write_table(
        pa.table({"TIMESTAMP": dates, "ContextTokens": [4801, 3185], "GeneratedTokens": [10, 8]}),
        tmp_path / "azure.parquet",
    )
    trace = load_trace(tmp_path / "azure.parquet")
    assert trace.arrival_s.tolist() == [0, 0.052]
    assert trace.prompt_tokens.tolist() == [4801, 3185]


def test_a_time_unit_overrides_the_formats_own_for_times_and_delays(tmp_path: Path) -> None:
    path = write(tmp_path, MOONCAKE, "trace.jsonl")
    assert load_trace(path, time_unit="s").arrival_s.tolist() == [0, 3053]
    turns = write(
        tmp_path,
        '{"session_id": "a", "timestamp": 0, "input_length": 5, "output_length": 1}\n'
        '{"session_id": "a", "delay": 7, "input_length": 5, "output_length": 1}\n',
        "turns.jsonl",
    )
    assert load_trace(turns, time_unit="us").delay_s.tolist()[1] == 7e-6


def test_differences_of_epoch_nanoseconds_keep_their_last_digit(tmp_path: Path) -> None:
    start = 1_700_000_000_000_000_000
    rows = [
        json.dumps({"arrival_time_ns": start + offset, "input_toks": 1, "output_toks": 1}) for offset in (0, 1, 1000)
    ]
    trace = load_trace(write(tmp_path, "\n".join(rows), "trace.jsonl"))
    assert trace.arrival_s.tolist() == [0, 1e-9, 1e-6]


def test_a_named_format_is_used_instead_of_the_recognised_one(tmp_path: Path) -> None:
    path = write(tmp_path, '{"timestamp": 5, "input_length": 3, "output_length": 2}\n' * 2, "trace.jsonl")
    assert load_trace(path, format="mooncake").warnings == ()


def test_rows_out_of_order_are_sorted_stably_with_a_warning(tmp_path: Path) -> None:
    trace = load_trace(write(tmp_path, VIDUR + "2.0,1,1\n1.0,2,1\n2.0,3,1\n1.0,4,1\n", "trace.csv"))
    assert trace.arrival_s.tolist() == [0, 0, 1, 1]
    assert trace.prompt_tokens.tolist() == [2, 4, 1, 3]
    assert trace.warnings == ("2 of 4 requests stand behind later ones in the file: sorted by arrival",)


def test_later_turns_move_with_the_session_when_rows_are_sorted(tmp_path: Path) -> None:
    text = (
        '{"session_id": "late", "timestamp": 9, "input_length": 1, "output_length": 1}\n'
        '{"session_id": "late", "delay": 1, "input_length": 2, "output_length": 1}\n'
        '{"session_id": "early", "timestamp": 4, "input_length": 3, "output_length": 1}\n'
        '{"session_id": "late", "delay": 1, "input_length": 4, "output_length": 1}\n'
    )
    trace = load_trace(write(tmp_path, text, "trace.jsonl"))
    assert trace.prompt_tokens.tolist() == [3, 1, 2, 4]
    assert trace.after.tolist() == [-1, -1, 1, 2]


def test_repeated_request_ids_are_told_apart_with_a_warning(tmp_path: Path) -> None:
    names = ["x", "x", "x#2", "x"]
    row = '{{"RequestID": "{}", "StartTimeOffset": 0, "ContextTokens": 1, "GeneratedTokens": 1}}\n'
    trace = load_trace(write(tmp_path, "".join(row.format(name) for name in names), "trace.jsonl"))
    assert trace.request_id == ("x", "x#3", "x#2", "x#4")
    assert trace.warnings[0].startswith("2 of 4 request ids repeat an earlier one")


def test_requests_without_output_get_one_token_and_a_counted_warning(tmp_path: Path) -> None:
    trace = load_trace(write(tmp_path, VIDUR + "0,5,0\n1,5,3\n2,5,0\n", "trace.csv"))
    assert trace.output_tokens.tolist() == [1, 3, 1]
    assert trace.warnings == ("2 of 3 requests have no output tokens: 1 is assumed",)


def test_columns_that_a_format_does_not_use_are_named(tmp_path: Path) -> None:
    text = "arrived_at,num_prefill_tokens,num_decode_tokens,priority\n0,5,1,high\n"
    assert load_trace(write(tmp_path, text, "t.csv")).warnings == ("fields that vidur does not use: priority",)


def test_a_request_of_any_format_may_have_a_priority(tmp_path: Path) -> None:
    lines = [
        '{"timestamp": 2000, "input_length": 8, "output_length": 2, "hash_ids": [1], "priority": 3}',
        '{"timestamp": 0, "input_length": 8, "output_length": 2, "hash_ids": [1]}',
        '{"timestamp": 1000, "input_length": 8, "output_length": 2, "hash_ids": [1], "priority": -1}',
    ]
    trace = load_trace(write(tmp_path, "\n".join(lines), "trace.jsonl"))
    assert trace.priority is not None
    assert trace.priority.tolist() == [0, -1, 3]
    assert TraceRequests(trace, 16, prefix_caching=False).request(2).priority == 3
    for suffix in (".parquet", ".jsonl"):
        save_trace(trace, tmp_path / f"saved{suffix}")
        again = load_trace(tmp_path / f"saved{suffix}").priority
        assert again is not None
        assert again.tolist() == [0, -1, 3]


def test_a_request_may_have_a_hundred_million_tokens(tmp_path: Path) -> None:
    path = write(tmp_path, VIDUR + "0,100000000,1\n", "trace.csv")
    assert load_trace(path).prompt_tokens.tolist() == [100_000_000]


def test_a_limit_keeps_the_first_requests_in_order_of_arrival(tmp_path: Path) -> None:
    path = write(tmp_path, VIDUR + "3,1,1\n1,2,1\n2,3,1\n", "trace.csv")
    assert load_trace(path, limit=2).prompt_tokens.tolist() == [2, 3]
    with pytest.raises(InputError, match="at least 1 request, not 0"):
        load_trace(path, limit=0)


def test_dejittering_is_the_same_every_time(tmp_path: Path) -> None:
    path = write(tmp_path, VIDUR + "0,1,1\n" * 9, "trace.csv")
    spread = load_trace(path, dejitter_s=3.0)
    assert len(set(spread.arrival_s)) == 9
    assert spread.arrival_s.max() < 3
    np.testing.assert_array_equal(spread.arrival_s, load_trace(path, dejitter_s=3.0).arrival_s)


def test_a_tokenizer_counts_instead_of_the_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Words:
        """Counts words, where the real package would count tokens."""

        @classmethod
        def from_file(cls, path: str) -> Words:
            assert Path(path).is_file()
            return cls()

        def encode(self, text: str) -> Words:
            self.ids = text.split()
            return self

    monkeypatch.setattr(
        importlib, "import_module", lambda name: {"tokenizers": type("", (), {"Tokenizer": Words})}[name]
    )
    tokenizer = write(tmp_path, "{}", "tokenizer.json")
    path = write(tmp_path, EXAMPLES["vllm_custom"].text, "trace.jsonl")
    trace = load_trace(path, tokens=str(tokenizer))
    assert trace.prompt_tokens.tolist() == [6, 1]
    assert not any("estimated" in warning for warning in trace.warnings)


def test_a_tokenizer_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    path = write(tmp_path, EXAMPLES["vllm_custom"].text, "trace.jsonl")
    with pytest.raises(InputError, match=r"install l4sim\[tokenizers\]"):
        load_trace(path, tokens="gpt2")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vidur", {"format": "vidour"}, "unknown trace format 'vidour'; known are auto, azure"),
        ("vidur", {"time_unit": "h"}, "unknown time unit 'h'; known are auto, ns, us, ms, s"),
        ("vidur", {"tokens": "gpt2"}, "vidur holds token counts, a tokenizer"),
        ("vidur_lengths", {"time_unit": "ms"}, "vidur_lengths has no arrival times, a time unit"),
        ("azure", {"time_unit": "ms"}, "line 2, field 'TIMESTAMP' is a date: a time unit"),
        ("vidur", {"format": "azure"}, "line 2, field 'ContextTokens' is missing"),
    ],
)
def test_options_that_do_not_apply_are_refused(
    name: str, options: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, EXAMPLES[name].text, f"trace{EXAMPLES[name].suffix}")
    with pytest.raises(InputError) as refused:
        load_trace(path, **options)
    assert message in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "rows"),
    [
        ("apex_llama_lmsys_05.jsonl.gz", 1024),
        ("azure_2023_code.csv.gz", 8819),
        ("azure_2023_conv.csv.gz", 19366),
        ("mooncake_synthetic.jsonl.gz", 3993),
        ("servegen_deepseek_r1_24h_thin16_sampled.csv.gz", 86921),
        ("servegen_deepseek_r1_peak20min_sampled.csv.gz", 50121),
        ("sharegpt_llama31_300.jsonl.gz", 300),
        ("tracelab_example_rounds.jsonl.gz", 19),
        ("vidur_arxiv_summarization.csv.gz", 28257),
        ("weka_agentic_mooncake512_dev.jsonl.gz", 8343),
    ],
)
def test_published_traces_load_whole(file: str, rows: int, shared_traces: Path) -> None:
    trace = load_trace(shared_traces / file)
    assert len(trace) == rows
    assert (np.diff(trace.arrival_s) >= 0).all()
    assert trace.arrival_s[0] == 0
