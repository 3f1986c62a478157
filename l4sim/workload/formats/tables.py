"""Formats with one independent request per row: Azure, BurstGPT, Vidur, Sarathi, ServeGen, APEX, GuideLLM.

Units of time, and where they are known from:

- ``azure`` (AzurePublicDataset, 2023, 2024 and 2025): dates with up to 7 fractional digits.
- ``azure_multimodal`` (2025): as above; images are not modelled, ContextTokens are the whole prompt.
- ``burstgpt`` (v1 and v3): whole seconds; 0 response tokens mark failed requests. A session id does not make a row
  wait for another: its time stamp says when it came.
- ``vidur``: seconds. ``vidur_lengths`` (its processed datasets): no times.
- ``sarathi`` (its TraceRequestGenerator): a date, and seconds within that day.
- ``servegen`` (rows sampled from Alibaba's ServeGen): seconds.
- ``apex`` (microsoft/apex_plus): nanoseconds; its 1,024 requests at 0.5 per second span 2.02e12 units.
- ``guidellm`` (its trace_synthetic data): seconds.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from l4sim.workload.formats.base import Format, Options, fields
from l4sim.workload.parsed import ParsedRequests
from l4sim.workload.raw_records import RawRecords, labels, times, tokens

SECONDS_PER_DAY = 86_400


def _read(
    records: RawRecords,
    options: Options,
    *,
    prompt: str,
    output: str,
    time: str | None = None,
    unit: str = "s",
    request_id: str | None = None,
    session: str | None = None,
    warnings: tuple[str, ...] = (),
) -> ParsedRequests:
    """Read a format whose columns need nothing but their names."""
    return ParsedRequests(
        prompt_tokens=tokens(records, prompt),
        output_tokens=tokens(records, output, least=0),
        arrival_s=None if time is None else times(records, time, unit, options.time_unit),
        request_id=None if request_id is None else labels(records, request_id),
        session=None if session is None else labels(records, session),
        warnings=warnings,
    )


def _read_guidellm(records: RawRecords, options: Options) -> ParsedRequests:
    parsed = _read(records, options, prompt="input_length", output="output_length", time="timestamp")
    if options.time_unit is None and set(map(type, records.column("timestamp"))) == {int}:
        doubt = (
            "timestamp is read as seconds (guidellm) though all are whole numbers: "
            "for milliseconds give --time-unit ms, or --format mooncake"
        )
        return ParsedRequests(parsed.prompt_tokens, parsed.output_tokens, parsed.arrival_s, warnings=(doubt,))
    return parsed


def _read_sarathi(records: RawRecords, options: Options) -> ParsedRequests:
    day_s = times(records, "Date", "s", None)
    time_s = times(records, "Time", "s", options.time_unit)
    seconds = np.round(day_s / SECONDS_PER_DAY) * SECONDS_PER_DAY + time_s
    return ParsedRequests(
        prompt_tokens=tokens(records, "PromptTokenCount"),
        output_tokens=tokens(records, "CompletionTokenCount", least=0),
        arrival_s=seconds - seconds.min(),
    )


_AZURE = fields("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_BURSTGPT = fields("Timestamp", "Model", "Request tokens", "Response tokens", "Log Type")
_VIDUR = fields("num_prefill_tokens", "num_decode_tokens")

_azure = partial(_read, prompt="ContextTokens", output="GeneratedTokens", time="TIMESTAMP")
_burstgpt = partial(_read, prompt="Request tokens", output="Response tokens", time="Timestamp")
_vidur = partial(_read, prompt="num_prefill_tokens", output="num_decode_tokens")

FORMATS = (
    Format("azure", (_AZURE,), fields(), _azure),
    Format(
        "azure_multimodal",
        (_AZURE | {"NumImages"},),
        fields(),
        partial(_azure, warnings=("images are not modelled: ContextTokens are taken as the whole prompt",)),
    ),
    Format("burstgpt", (_BURSTGPT,), fields("Total tokens"), _burstgpt),
    Format(
        "burstgpt_sessions",
        (_BURSTGPT | {"Session ID"},),
        fields("Total tokens", "Elapsed time"),
        partial(_burstgpt, session="Session ID"),
    ),
    Format(
        "vidur", (_VIDUR | {"arrived_at"},), fields("num_total_tokens", "pd_ratio"), partial(_vidur, time="arrived_at")
    ),
    Format("vidur_lengths", (_VIDUR,), fields("num_total_tokens", "pd_ratio"), _vidur),
    Format("sarathi", (fields("Date", "Time", "PromptTokenCount", "CompletionTokenCount"),), fields(), _read_sarathi),
    Format(
        "servegen",
        (fields("timestamp_s", "input_tokens", "output_tokens"),),
        fields("client_id", "reason_ratio"),
        partial(_read, prompt="input_tokens", output="output_tokens", time="timestamp_s"),
    ),
    Format(
        "apex",
        (fields("StartTimeOffset", "ContextTokens", "GeneratedTokens"),),
        fields("RequestID", "TotalTokens"),
        partial(
            _read,
            prompt="ContextTokens",
            output="GeneratedTokens",
            time="StartTimeOffset",
            unit="ns",
            request_id="RequestID",
        ),
    ),
    Format("guidellm", (fields("timestamp", "input_length", "output_length"),), fields(), _read_guidellm),
)
