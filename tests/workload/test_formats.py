from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from l4sim.errors import InputError
from l4sim.workload.files import read_records
from l4sim.workload.formats import FORMATS, recognise
from l4sim.workload.load import load_trace
from l4sim.workload.prefix_runs import blocks_of
from l4sim.workload.trace import Trace
from l4sim.workload.transform import NEEDS_RATE
from tests.workload.trace_examples import EXAMPLES

NAN = float("nan")
ESTIMATED = (
    "token counts are estimated from the texts (4 characters per token, rounded up): name a tokenizer with --tokens"
)


def load(tmp_path: Path, text: str, suffix: str, **options: str) -> Trace:
    path = tmp_path / f"trace{suffix}"
    path.write_text(text)
    return load_trace(path, **options)


def blocks(trace: Trace) -> list[list[int]]:
    assert trace.prefix is not None
    ids = blocks_of(trace.prefix, trace.prompt_tokens, trace.prefix.block_tokens)
    return [part.tolist() for part in np.split(ids.ids, ids.offsets[1:-1])]


def runs(trace: Trace) -> list[list[tuple[int, int]]]:
    """Each request's blocks of any size: the id and where the block ends."""
    assert trace.prefix is not None
    assert trace.prefix.ends is not None
    pairs = list(zip(trace.prefix.ids.tolist(), trace.prefix.ends.tolist(), strict=True))
    return [pairs[start:end] for start, end in pairwise(trace.prefix.offsets.tolist())]


# Arrivals, prompts, outputs, sessions, rows followed and delays, worked by hand from the examples.
EXPECTED = {
    "azure": ([0, 0.052], [4801, 3185], [10, 8], [-1, -1], [-1, -1], [NAN, NAN]),
    "azure_multimodal": ([0], [1500], [200], [-1], [-1], [NAN]),
    "burstgpt": ([0, 40], [470, 1080], [18, 230], [-1, -1], [-1, -1], [NAN, NAN]),
    "burstgpt_sessions": ([0, 40, 45], [470, 1080, 30], [18, 230, 20], [0, -1, 0], [-1, -1, -1], [NAN] * 3),
    "vidur": ([0, 4.314579], [371, 395], [44, 109], [-1, -1], [-1, -1], [NAN, NAN]),
    "vidur_lengths": ([0, 0], [3701, 2010], [54, 156], [-1, -1], [-1, -1], [NAN, NAN]),
    "sarathi": ([0, 1], [1200, 1300], [80, 90], [-1, -1], [-1, -1], [NAN, NAN]),
    "servegen": ([0, 0.599], [880, 19], [370, 1630], [-1, -1], [-1, -1], [NAN, NAN]),
    "apex": ([0, 1.000000001], [300, 17], [820, 5], [-1, -1], [-1, -1], [NAN, NAN]),
    "guidellm": ([0, 0.5], [256, 512], [128, 64], [-1, -1], [-1, -1], [NAN, NAN]),
    "mooncake": ([0, 3.053], [1025, 1000], [52, 26], [-1, -1], [-1, -1], [NAN, NAN]),
    "qwen_bailian": ([0, 58.75], [20, 33], [90, 132], [0, 0], [-1, -1], [NAN, NAN]),
    "aibrix": ([0, 0.5, 0.5], [178, 18, 1234], [8, 7, 3], [-1] * 3, [-1] * 3, [NAN] * 3),
    "llmservingsim": ([0, 0.004, NAN], [128, 1472, 1582], [512, 133, 125], [-1, 0, 0], [-1, -1, 1], [NAN, NAN, 0.127]),
    "vllm_custom": ([0, 0], [8, 1], [12, 37], [-1, -1], [-1, -1], [NAN, NAN]),
    "aiperf_single_turn": ([0, 2.5], [3, 1], [9, 77], [-1, -1], [-1, -1], [NAN, NAN]),
    # The second prompt is "hello" (2), its answer (10) and "more" (1).
    "aiperf_multi_turn": ([0, NAN], [2, 13], [10, 21], [0, 0], [-1, 0], [NAN, 1.5]),
    # The second round begins with its last tool result.
    "tracelab": ([0, 30], [640, 777], [93, 5], [0, 0], [-1, -1], [NAN, NAN]),
    # The subagent begins 0.75 s after the first answer; its own ends at 7 s, 2 s before the third request.
    "weka": ([0, NAN, NAN], [200, 130, 330], [15, 9, 19], [0, 0, 0], [-1, 0, 1], [NAN, 0.75, 2.0]),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_format_is_recognised_and_read(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    trace = load(tmp_path, example.text, example.suffix)
    assert recognise(read_records(tmp_path / f"trace{example.suffix}")).name == name
    arrival_s, prompts, outputs, sessions, after, delay_s = EXPECTED[name]
    np.testing.assert_allclose(trace.arrival_s, arrival_s, rtol=0, atol=1e-12)
    assert trace.prompt_tokens.tolist() == prompts
    assert trace.output_tokens.tolist() == outputs
    assert trace.session.tolist() == sessions
    assert trace.after.tolist() == after
    np.testing.assert_allclose(trace.delay_s, delay_s, rtol=0, atol=1e-12)


def test_the_expectations_cover_every_format() -> None:
    assert {*EXPECTED, "sharegpt"} == set(FORMATS)


SAMPLES = {
    "aibrix.jsonl": "aibrix",
    "aiperf_multi_turn.jsonl": "aiperf_multi_turn",
    "aiperf_single_turn.jsonl": "aiperf_single_turn",
    "apex_splitwise.jsonl": "apex",
    "azure_2023.csv": "azure",
    "azure_2024.csv": "azure",
    "azure_2025_multimodal.csv": "azure_multimodal",
    "burstgpt_v1.csv": "burstgpt",
    "burstgpt_v3.csv": "burstgpt_sessions",
    "dynamo_mooncake_session.jsonl": "mooncake",
    "guidellm_trace_synthetic.jsonl": "guidellm",
    "llmservingsim.jsonl": "llmservingsim",
    "mooncake.jsonl": "mooncake",
    "qwen_bailian.jsonl": "qwen_bailian",
    "sarathi.csv": "sarathi",
    "sharegpt.json": "sharegpt",
    "tracelab_round.jsonl": "tracelab",
    "vidur.csv": "vidur",
    "vidur_lengths.csv": "vidur_lengths",
    "vllm_custom.jsonl": "vllm_custom",
    "weka_trace.json": "weka",
}


def test_every_published_sample_is_recognised_and_loads(shared_traces: Path) -> None:
    folder = shared_traces / "format_samples"
    assert {path.name for path in folder.iterdir()} == set(SAMPLES)
    for file, name in SAMPLES.items():
        assert recognise(read_records(folder / file)).name == name
        assert len(load_trace(folder / file)) >= 1


@pytest.mark.parametrize("name", ["vidur_lengths", "vllm_custom", "weka"])
def test_formats_without_arrival_times_ask_for_a_rate(name: str, tmp_path: Path) -> None:
    assert NEEDS_RATE in load(tmp_path, EXAMPLES[name].text, EXAMPLES[name].suffix).warnings


@pytest.mark.parametrize(
    ("name", "ids", "block_tokens"),
    [
        ("mooncake", [[0, 1, 2], [0, 3]], 512),
        ("qwen_bailian", [[0, 1], [0, 1, 2]], 16),
        # The last turn repeats the 200 tokens of the first, with their answer: their fourth block is its fourth's.
        ("weka", [[0, 1, 2, 3], [4, 5], [0, 1, 2, 3, 6]], 64),
    ],
)
def test_prefix_blocks(name: str, ids: list[list[int]], block_tokens: int, tmp_path: Path) -> None:
    trace = load(tmp_path, EXAMPLES[name].text, EXAMPLES[name].suffix)
    assert blocks(trace) == ids
    assert trace.prefix is not None
    assert trace.prefix.block_tokens == block_tokens


def test_azure_dates_may_carry_a_time_zone(tmp_path: Path) -> None:
    header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    rows = "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 02:00:00.017335+02:00,2399,6\n"
    assert load(tmp_path, header + rows, ".csv").arrival_s.tolist() == [0, pytest.approx(0.007405)]


def test_dynamo_turns_wait_for_the_session_and_may_have_fewer_ids_than_blocks(tmp_path: Path) -> None:
    text = (
        '{"session_id": "a", "input_length": 9176, "output_length": 152, "hash_ids": [0, 1, 2]}\n'
        '{"session_id": "b", "timestamp": 250, "input_length": 10, "output_length": 5, "hash_ids": [9]}\n'
        '{"session_id": "a", "delay": 500, "input_length": 9368, "output_length": 104, "hash_ids": [0, 1, 2, 3]}\n'
        '{"session_id": "a", "input_length": 9400, "output_length": 10, "hash_ids": [0]}\n'
        '{"session_id": "b", "timestamp": 1250, "input_length": 20, "output_length": 5, "hash_ids": [9]}\n'
    )
    trace = load(tmp_path, text, ".jsonl")
    # Session a has no time of its own: it begins at 0, as the first of session b does.
    assert trace.prompt_tokens.tolist() == [9176, 10, 9368, 9400, 20]
    np.testing.assert_array_equal(trace.arrival_s, [0, 0, NAN, NAN, 1])
    assert trace.after.tolist() == [-1, -1, 0, 2, -1]
    np.testing.assert_array_equal(trace.delay_s, [NAN, NAN, 0.5, 0, NAN])
    assert NEEDS_RATE in trace.warnings
    assert any(warning.startswith("3 of 5 prompts have fewer block ids") for warning in trace.warnings)


def test_a_conversation_becomes_one_request_per_answer_with_all_that_was_said_before(tmp_path: Path) -> None:
    said = [
        ("system", "abcd" * 64),
        ("human", "abcd" * 10),
        ("gpt", "abcd" * 5),
        ("human", "abcde"),
        ("gpt", "a"),
        ("human", "no answer"),
    ]
    conversations = [
        {"id": "x", "conversations": [{"from": who, "value": text} for who, text in said]},
        {"id": "y", "conversations": [{"from": "human", "value": "only a question"}]},
        {"id": "z", "conversations": [{"from": "gpt", "value": "abcd"}]},
    ]
    trace = load(tmp_path, json.dumps(conversations), ".json")
    assert trace.request_id == ("x:0", "x:1")
    assert trace.prompt_tokens.tolist() == [64 + 10, 64 + 10 + 5 + 2]
    assert trace.output_tokens.tolist() == [5, 1]
    assert trace.after.tolist() == [-1, 0]
    assert trace.delay_s.tolist()[1] == 0
    # The second prompt goes on from the first one's 74 tokens and the answer's 5.
    assert runs(trace) == [[(0, 79)], [(0, 82)]]
    assert trace.warnings == (
        ESTIMATED,
        "2 of 3 conversations end with an unanswered message, which is left out",
        "1 of 3 conversations begin with an answer: it only adds to the later prompts",
        "2 of 3 conversations hold no answered prompt and are left out",
        NEEDS_RATE,
    )


def test_outputs_that_a_text_format_does_not_state_are_assumed_aloud(tmp_path: Path) -> None:
    trace = load(tmp_path, '{"prompt": "hi"}\n{"prompt": "ho", "output_tokens": 3}\n', ".jsonl")
    assert trace.output_tokens.tolist() == [256, 3]
    assert "1 of 2 requests come without an output length: 256 tokens are assumed" in trace.warnings


def weka(*requests: dict[str, object], **about: object) -> str:
    complete = [{"in": 64, "out": 1, "hash_ids": [1], "type": "n"} | request for request in requests]
    return json.dumps({"id": "w", "block_size": 64, "requests": complete} | about) + "\n"


def test_weka_pauses_count_from_the_last_answer_and_unknown_ends_from_the_median(tmp_path: Path) -> None:
    text = weka(
        {"t": 0, "api_time": 4.0},
        {"t": 10},  # ends at 13, the median later
        {"t": 20, "api_time": 8.0},
        {"t": 30},  # would end at 33, but the next begins at 31
        {"t": 31, "api_time": 2.0},
        {"t": 32.5, "api_time": 1.0},  # seems to begin before the answer's end: the clock ticks in seconds
    )
    trace = load(tmp_path, text, ".jsonl")
    assert trace.after.tolist() == [-1, 0, 1, 2, 3, 4]
    assert trace.delay_s.tolist()[1:] == [6, 7, 2, 0, 0]
    assert trace.warnings[0] == "2 of 6 requests have no api_time: the median of the others (3 s) is used"


def test_weka_requests_that_overlap_branch_off_the_same_predecessor(tmp_path: Path) -> None:
    text = weka(
        {"t": 0, "api_time": 1.0},
        {"t": 3, "api_time": 10.0},
        {"t": 5, "api_time": 2.0},
        {"t": 20, "api_time": 1.0},
    )
    trace = load(tmp_path, text, ".jsonl")
    assert trace.after.tolist() == [-1, 0, 0, 1]
    assert trace.delay_s.tolist()[1:] == [2, 4, 7]


def test_weka_subagents_may_count_time_from_the_session(tmp_path: Path) -> None:
    inner = {"t": 6.5, "in": 64, "out": 1, "hash_ids": [2], "api_time": 1.0}
    subagent = {"t": 6, "type": "subagent", "requests": [inner]}
    trace = load(tmp_path, weka({"t": 0, "api_time": 5.0}, subagent, {"t": 9, "api_time": 1.0}), ".jsonl")
    assert trace.after.tolist() == [-1, 0, 1]
    assert trace.delay_s.tolist()[1:] == [1.5, 1.5]


def test_weka_ids_local_to_a_session_are_never_shared_between_sessions(tmp_path: Path) -> None:
    sessions = weka({"t": 0, "api_time": 1.0}) + weka({"t": 0, "api_time": 1.0}, id="v")
    assert blocks(load(tmp_path, sessions, ".jsonl")) == [[0], [1]]
    shared = weka({"t": 0, "api_time": 1.0}, hash_id_scope="global") * 2
    assert blocks(load(tmp_path, shared, ".jsonl")) == [[0], [0]]


def test_conversations_that_share_an_id_stay_apart(tmp_path: Path) -> None:
    text = EXAMPLES["aiperf_multi_turn"].text * 2
    trace = load(tmp_path, text, ".jsonl")
    assert trace.session.tolist() == [0, 0, 1, 1]
    assert trace.after.tolist() == [-1, 0, -1, 2]
    assert trace.request_id == ("s1:0", "s1:1", "s1:0#2", "s1:1#2")


@pytest.mark.slow
def test_every_weka_prompt_of_the_recording_has_an_id_per_full_block(shared_traces: Path) -> None:
    trace = load_trace(shared_traces / "weka_raw_sample.jsonl.gz")
    assert trace.prefix is not None
    known = blocks_of(trace.prefix, trace.prompt_tokens // 64 * 64, 64)
    assert np.diff(known.offsets).tolist() == (trace.prompt_tokens // 64).tolist()
    assert len(trace) == 1140
    assert (trace.after < 0).sum() == 27


def test_qwen_conversations_are_found_through_their_parents(tmp_path: Path) -> None:
    rows = [(1, -1), (2, 1), (3, -1), (4, 2), (5, 77), (6, 77)]
    text = "".join(
        json.dumps(
            {"chat_id": chat, "parent_chat_id": parent, "timestamp": chat, "input_length": 5, "output_length": 1}
        )
        + "\n"
        for chat, parent in rows
    )
    # 77 is not in the file, but still one conversation.
    assert load(tmp_path, text, ".jsonl").session.tolist() == [0, 0, 1, 0, 2, 2]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("mooncake", "[46, 49]", "[46]", "line 2, field 'hash_ids' has 1 ids; expected 2 of 512 tokens each"),
        ("mooncake", "[46, 49]", "[46, 49, 50]", "line 2, field 'hash_ids' has 3 ids; expected 2 of 512 tokens each"),
        ("qwen_bailian", "[7, 8, 9]", "[7, 8]", "line 2, field 'hash_ids' has 2 ids; expected 3 of 16 tokens each"),
        ("weka", "[4, 5]", "[4]", "requests[1].requests[0], field 'hash_ids' has 1 ids; expected 2 to 3 of 64 tokens"),
        ("mooncake", "[46, 49]", "[46, 4.5]", "field 'hash_ids': [46, 4.5] is not accepted"),
        ("mooncake", "[46, 49]", "[46, null]", "expected a list of whole numbers or texts (hashes)"),
    ],
)
def test_block_ids_must_fit_the_prompt(name: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        load(tmp_path, EXAMPLES[name].text.replace(old, new), EXAMPLES[name].suffix)
    assert message in str(refused.value)


def test_whole_seconds_of_guidellm_might_be_milliseconds(tmp_path: Path) -> None:
    text = '{"timestamp": 0, "input_length": 256, "output_length": 128}\n'
    assert any("--time-unit ms" in warning for warning in load(tmp_path, text, ".jsonl").warnings)
    assert not load(tmp_path, text, ".jsonl", time_unit="s").warnings
