"""A few hand-written rows of every format, and where each keeps a number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    suffix: str
    text: str
    field: str
    """A field with token counts, whose value `value` occurs once in `text`, on line `line`."""
    value: str
    line: int


EXAMPLES = {
    "azure": Example(
        ".csv",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,4801,10\n"
        "2023-11-16 18:17:04.0319600,3185,8\n",
        "ContextTokens",
        "3185",
        3,
    ),
    "azure_multimodal": Example(
        ".csv",
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-15 00:00:00.100000,1,1500,200\n",
        "ContextTokens",
        "1500",
        2,
    ),
    "burstgpt": Example(
        ".csv",
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,470,18,488,Conversation log\n"
        "45,ChatGPT,1080,230,1310,Conversation log\n",
        "Request tokens",
        "1080",
        3,
    ),
    "burstgpt_sessions": Example(
        ".csv",
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,a,3.2,ChatGPT,470,18,488,Conversation log\n"
        "45,,5.0,GPT-4,1080,230,1310,API log\n"
        "50,a,5.0,GPT-4,30,20,50,API log\n",
        "Response tokens",
        "230",
        3,
    ),
    "vidur": Example(
        ".csv",
        "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,371,44\n4.314579,395,109\n",
        "num_decode_tokens",
        "109",
        3,
    ),
    "vidur_lengths": Example(
        ".csv",
        "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n3701,54,3755,69.85\n2010,156,2166,12.9\n",
        "num_prefill_tokens",
        "2010",
        3,
    ),
    "sarathi": Example(
        ".csv",
        "Date,Time,PromptTokenCount,CompletionTokenCount\n2023-08-21,86399.5,1200,80\n2023-08-22,0.5,1300,90\n",
        "PromptTokenCount",
        "1300",
        3,
    ),
    "servegen": Example(
        ".csv",
        "timestamp_s,client_id,input_tokens,output_tokens,reason_ratio\n0.016,70,880,370,0.8663\n0.615,35,19,1630,0.7665\n",
        "output_tokens",
        "1630",
        3,
    ),
    "apex": Example(
        ".jsonl",
        '{"RequestID": "a", "StartTimeOffset": 618518284, "ContextTokens": 300, "GeneratedTokens": 820}\n'
        '{"RequestID": "b", "StartTimeOffset": 1618518285, "ContextTokens": 17, "GeneratedTokens": 5}\n',
        "GeneratedTokens",
        "820",
        1,
    ),
    "guidellm": Example(
        ".jsonl",
        '{"timestamp": 1234500.0, "input_length": 256, "output_length": 128}\n'
        '{"timestamp": 1234500.5, "input_length": 512, "output_length": 64}\n',
        "input_length",
        "512",
        2,
    ),
    "mooncake": Example(
        ".jsonl",
        '{"timestamp": 27482, "input_length": 1025, "output_length": 52, "hash_ids": [46, 47, 48]}\n'
        '{"timestamp": 30535, "input_length": 1000, "output_length": 26, "hash_ids": [46, 49]}\n',
        "input_length",
        "1000",
        2,
    ),
    "qwen_bailian": Example(
        ".jsonl",
        '{"chat_id": 55, "parent_chat_id": -1, "timestamp": 2.5, "input_length": 20, "output_length": 90, '
        '"type": "text", "turn": 1, "hash_ids": [7, 8]}\n'
        '{"chat_id": 59, "parent_chat_id": 55, "timestamp": 61.25, "input_length": 33, "output_length": 132, '
        '"type": "text", "turn": 2, "hash_ids": [7, 8, 9]}\n',
        "output_length",
        "132",
        2,
    ),
    "aibrix": Example(
        ".jsonl",
        '{"timestamp": 6011, "requests": [{"Prompt Length": 178, "Output Length": 8}]}\n'
        '{"timestamp": 6511, "requests": [{"Prompt Length": 18, "Output Length": 7}, '
        '{"Prompt Length": 1234, "Output Length": 3}]}\n',
        "Prompt Length",
        "1234",
        2,
    ),
    "llmservingsim": Example(
        ".jsonl",
        '{"input_toks": 128, "output_toks": 512, "arrival_time_ns": 0}\n'
        '{"session_id": "s", "arrival_time_ns": 4000000, "sub_requests": ['
        '{"input_toks": 1472, "output_toks": 133, "tool_duration_ns": 127000000}, '
        '{"input_toks": 1582, "output_toks": 125, "tool_duration_ns": 0}]}\n',
        "input_toks",
        "1582",
        2,
    ),
    "vllm_custom": Example(
        ".jsonl",
        '{"prompt": "What is the capital of India?", "output_tokens": 12}\n{"prompt": "hi", "output_tokens": 37}\n',
        "output_tokens",
        "37",
        2,
    ),
    "aiperf_single_turn": Example(
        ".jsonl",
        '{"text": "What is AI?", "timestamp": 1000, "output_length": 9}\n'
        '{"text": "hi", "timestamp": 3500, "output_length": 77}\n',
        "output_length",
        "77",
        2,
    ),
    "aiperf_multi_turn": Example(
        ".jsonl",
        '{"session_id": "s1", "turns": [{"timestamp": 0, "text": "hello", "output_length": 10}, '
        '{"delay": 1500, "text": "more", "output_length": 21}]}\n',
        "output_length",
        "21",
        1,
    ),
    "tracelab": Example(
        ".jsonl",
        '{"session_id": "s", "round_index": 0, "input_tokens_total": 640, "prefix_tokens": 100, "output_tokens": 93, '
        '"timing_events": [{"event_type": "user_message", "timestamp": "2026-06-01T05:40:20.151Z"}, '
        '{"event_type": "text", "timestamp": "2026-06-01T05:40:29.000Z"}]}\n'
        '{"session_id": "s", "round_index": 1, "input_tokens_total": 777, "prefix_tokens": 638, "output_tokens": 5, '
        '"timing_events": [{"event_type": "tool_result", "timestamp": "2026-06-01T05:40:31.000Z"}, '
        '{"event_type": "tool_result", "timestamp": "2026-06-01T05:40:50.151Z"}, '
        '{"event_type": "text", "timestamp": "2026-06-01T05:40:51.000Z"}]}\n',
        "input_tokens_total",
        "777",
        2,
    ),
    "weka": Example(
        ".jsonl",
        '{"id": "w", "block_size": 64, "hash_id_scope": "local", "requests": ['
        '{"t": 0.0, "type": "n", "in": 200, "out": 15, "hash_ids": [1, 2, 3], "api_time": 5.25}, '
        '{"t": 6.0, "type": "subagent", "agent_id": "a", "requests": ['
        '{"t": 0.0, "type": "s", "in": 130, "out": 9, "hash_ids": [4, 5], "api_time": 1.0}]}, '
        '{"t": 9.0, "type": "n", "in": 330, "out": 19, "hash_ids": [1, 2, 3, 6, 7], "api_time": 3.5}]}\n',
        "in",
        "330",
        1,
    ),
}
