"""Wrong input of every format is refused in one line that names the file, the line and the field."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from l4sim.cli import main
from l4sim.errors import InputError
from l4sim.workload.load import load_trace
from tests.workload.trace_examples import EXAMPLES

VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n"

PROMPT_FIELDS = {
    "ContextTokens",
    "Request tokens",
    "num_prefill_tokens",
    "PromptTokenCount",
    "input_length",
    "Prompt Length",
    "input_toks",
    "input_tokens_total",
    "in",
}


def refusal(path: Path, **options: str) -> str:
    with pytest.raises(InputError) as refused:
        load_trace(path, **options)
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def write(tmp_path: Path, text: str, name: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("bad", ["-5", "1.5", "NaN", "Infinity", "1000000000", "1e999", "many", "true", "[1]"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_wrong_number_is_refused_with_file_line_field_value_and_what_is_accepted(
    name: str, bad: str, tmp_path: Path
) -> None:
    example = EXAMPLES[name]
    assert example.text.count(example.value) == 1
    written = '"many"' if bad == "many" and example.suffix == ".jsonl" else bad
    path = write(tmp_path, example.text.replace(example.value, written), f"trace{example.suffix}")
    message = refusal(path)
    assert f"line {example.line}" in message
    assert f"field '{example.field}'" in message
    assert "expected a whole number of tokens from" in message


@pytest.mark.parametrize("name", [name for name in EXAMPLES if EXAMPLES[name].field in PROMPT_FIELDS])
def test_a_prompt_of_no_tokens_is_refused(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    path = write(tmp_path, example.text.replace(example.value, "0"), f"trace{example.suffix}")
    assert f"field '{example.field}': " in refusal(path)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_truncated_file_is_refused(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    # A table loses its last cells, JSON its last brackets.
    end = example.text.rindex(",") if example.suffix == ".csv" else len(example.text) - 3
    message = refusal(write(tmp_path, example.text[:end], f"trace{example.suffix}"))
    assert f"line {example.text.count(chr(10), 0, end) + 1}" in message


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_truncated_gzip_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"trace{EXAMPLES[name].suffix}.gz"
    path.write_bytes(gzip.compress(EXAMPLES[name].text.encode())[:-12])
    assert "broken or truncated gzip" in refusal(path)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_empty_file_is_refused(name: str, tmp_path: Path) -> None:
    suffix = EXAMPLES[name].suffix
    assert "the file is empty" in refusal(write(tmp_path, "", f"nothing{suffix}"))
    assert "the file is empty" in refusal(write(tmp_path, " \n\n", f"blank{suffix}"))


def test_a_table_without_rows_and_an_array_without_elements_are_refused(tmp_path: Path) -> None:
    assert "holds no records" in refusal(write(tmp_path, VIDUR, "trace.csv"))
    assert "holds no records" in refusal(write(tmp_path, "[]", "trace.json"))


@pytest.mark.parametrize(
    "text",
    [
        '{"timestamp": 0, "requests": []}\n',
        '{"turns": []}\n',
        '{"arrival_time_ns": 0, "sub_requests": []}\n',
        '{"block_size": 64, "requests": []}\n',
        '{"block_size": 64, "requests": [{"t": 0, "type": "subagent", "requests": []}]}\n',
    ],
)
def test_records_without_requests_are_refused(text: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path, text, "trace.jsonl")).endswith("the file holds no requests")


@pytest.mark.parametrize("name", [name for name in EXAMPLES if EXAMPLES[name].suffix == ".jsonl"])
def test_rows_of_another_format_are_refused(name: str, tmp_path: Path) -> None:
    other = "vllm_custom" if name != "vllm_custom" else "guidellm"
    path = write(tmp_path, EXAMPLES[name].text + EXAMPLES[other].text, "mixed.jsonl")
    message = refusal(path)
    assert f"line {EXAMPLES[name].text.count(chr(10)) + 1}" in message
    assert f"are of format {other}, but the file began as {name}; expected one format per file" in message


@pytest.mark.parametrize("name", [name for name in EXAMPLES if EXAMPLES[name].suffix == ".csv"])
def test_rows_with_other_columns_than_the_header_are_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, EXAMPLES[name].text + "1,2\n", "mixed.csv")
    assert f"line {EXAMPLES[name].text.count(chr(10)) + 1}: 2 cells where the header names" in refusal(path)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_command_line_prints_one_line_and_exits_with_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = EXAMPLES[name]
    path = write(tmp_path, example.text.replace(example.value, "-1"), f"trace{example.suffix}")
    with pytest.raises(SystemExit) as stopped:
        main(["trace", "info", str(path)])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"l4sim: {path}, line {example.line}")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "trace.csv",
            "when,how_long\n1,2\n",
            "line 1: no known trace format has the fields 'how_long', 'when'; known are",
        ),
        ("trace.csv", "a,a\n1,2\n", "line 1: column 'a' occurs twice"),
        ("trace.csv", VIDUR + '0,5,"1\n', "not valid CSV"),
        ("trace.csv", VIDUR + "0,,1\n", "line 2, field 'num_prefill_tokens' is missing; expected a whole number"),
        ("trace.csv", VIDUR + "\n\n0,x,1\n", "line 4, field 'num_prefill_tokens': 'x' is not accepted"),
        ("trace.csv", VIDUR + "soon,5,1\n", "line 2, field 'arrived_at': 'soon' is not accepted; expected a date"),
        (
            "trace.csv",
            VIDUR + "0,5,1\nnan,5,1\n",
            "line 3, field 'arrived_at': 'nan' is not accepted; expected a finite",
        ),
        ("trace.csv", VIDUR + "0,5,1\n,5,1\n", "line 3, field 'arrived_at' is missing; expected a time"),
        ("trace.jsonl", "[1, 2]\n", "line 1: expected a JSON object, not int"),
        ("trace.jsonl", '{"prompt": "a"}\n17\n', "line 2: expected a JSON object, not int"),
        (
            "trace.jsonl",
            '{"prompt": "a"}\n\n{"prompt": 5}\n',
            "line 3, field 'prompt': 5 is not accepted; expected text",
        ),
        ("trace.jsonl", "{}\n", "line 1: no known trace format has the fields (none)"),
        ("trace.csv", VIDUR + "now,5,1\n", "line 2, field 'arrived_at': 'now' is not accepted; expected a date"),
        ("trace.jsonl", '{"input_length": 5}\n', "line 1: no known trace format has the fields 'input_length'"),
        ("trace.json", '[{"prompt": "a"},\n {"prompt": ', "line 2: not valid JSON"),
        ("trace.json", '[{"prompt": "a"}\n', "line 2: the JSON array ends without ']'"),
        ("trace.json", '[\n{"prompt": "a"},\n\n{"prompt": 5}]', "line 4, field 'prompt': 5 is not accepted"),
        ("trace.json", '[{"prompt": "a"}]\nmore', "line 2: text after the end of the JSON array"),
        ("trace.json", '{\n"prompt": "a",\n"output_tokens": }', "line 3: not valid JSON"),
        ("trace.parquet", "no parquet", "not a readable parquet file"),
        ("trace.gz", "", "a trace file ends with .csv, .jsonl, .json, .parquet"),
        ("trace.txt", "", "a trace file ends with .csv, .jsonl, .json, .parquet"),
        ("trace.csv.gz", "no gzip", "broken or truncated gzip"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    assert message in refusal(write(tmp_path, text, name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"conversations": [{"from": "alien", "value": "a"}]}]', "conversations[0], field 'from': 'alien'"),
        ('[{"conversations": [{"from": "gpt"}]}]', "conversations[0], field 'value' is missing; expected text"),
        ('[{"conversations": "hi"}]', "field 'conversations': 'hi' is not accepted; expected a list of objects"),
        ('[{"conversations": []}]', "no conversation holds an answer to a prompt"),
    ],
)
def test_conversations(text: str, message: str, tmp_path: Path) -> None:
    assert message in refusal(write(tmp_path, text, "trace.json"))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("weka", '"block_size": 64', '"block_size": 0', "line 1, field 'block_size': 0 is not accepted"),
        (
            "weka",
            '"local"',
            '"sky"',
            "line 1, field 'hash_id_scope': 'sky' is not accepted; expected 'local' or 'global'",
        ),
        (
            "weka",
            '"t": 9.0',
            '"t": -9.0',
            "line 1, requests[2], field 't': -9.0 is not accepted; expected seconds >= 0",
        ),
        ("weka", '"api_time": 3.5', '"api_time": "x"', "requests[2], field 'api_time': 'x' is not accepted"),
        ("weka", '"requests": [{"t": 0.0, "type": "s"', '"requests": [5, {"t": 0.0, "type": "s"', "a list of objects"),
        ("aiperf_multi_turn", '"delay": 1500', '"delay": -1', "turns[1], field 'delay': -1 is not accepted"),
        ("llmservingsim", "127000000", "-1", "sub_requests[0], field 'tool_duration_ns': -1 is not accepted"),
        (
            "tracelab",
            '"timing_events": [{"event_type": "user_message"',
            '"timing_events": [7, {"a": "b"',
            "a list of events",
        ),
        ("tracelab", '"2026-06-01T05:40:50.151Z"', '"NaT"', "line 2, field 'timing_events': 'NaT' is not accepted"),
        (
            "qwen_bailian",
            '"chat_id": 59',
            '"chat_id": 55',
            "line 2, field 'chat_id': 55 is not accepted; expected an id",
        ),
        ("mooncake", '"timestamp": 30535, ', '"session_id": null, "timestamp": null, ', "line 2: the fields"),
        (
            "mooncake",
            '"timestamp": 30535',
            '"timestamp": 30535, "delay": 5',
            "'delay': 5 is not accepted; expected a delay only",
        ),
    ],
)
def test_what_lies_deeper(name: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    text = EXAMPLES[name].text
    assert old in text
    assert message in refusal(write(tmp_path, text.replace(old, new), f"trace{EXAMPLES[name].suffix}"))


def test_sessions_of_different_block_sizes_are_refused(tmp_path: Path) -> None:
    text = EXAMPLES["weka"].text
    path = write(tmp_path, text + text.replace('"block_size": 64', '"block_size": 65'), "trace.jsonl")
    assert "line 2: block_size and hash_id_scope differ from the first session's" in refusal(path)


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(VIDUR.encode() + b"0,5,1\n\xff,1,1\n")
    assert "line 3: not UTF-8 text" in refusal(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(tmp_path / "absent.csv")
