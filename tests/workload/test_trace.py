"""What tells one trace from another."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from l4sim.workload.trace import PrefixBlocks, Trace


def two_turns() -> Trace:
    return Trace(
        name="t",
        request_id=("a", "b"),
        arrival_s=np.array([0.0, np.nan]),
        prompt_tokens=np.array([10, 20]),
        output_tokens=np.array([1, 2]),
        session=np.array([0, 0]),
        after=np.array([-1, 0]),
        delay_s=np.array([np.nan, 7.0]),
        prefix=PrefixBlocks(np.array([1, 1, 2]), np.array([0, 1, 3]), 16),
    )


def test_its_hash_is_of_what_is_simulated_not_of_names_and_remarks():
    renamed = replace(two_turns(), name="other", request_id=("x", "y"), warnings=("clamped",))
    assert renamed.content_hash == two_turns().content_hash


@pytest.mark.parametrize("column", ["arrival_s", "prompt_tokens", "output_tokens", "session", "after", "delay_s"])
def test_any_number_that_differs_makes_another_hash(column):
    values = getattr(two_turns(), column).copy()
    values[1] = 3
    assert replace(two_turns(), **{column: values}).content_hash != two_turns().content_hash


def test_other_prefixes_make_another_hash():
    trace = two_turns()
    other = PrefixBlocks(np.array([1, 3, 2]), np.array([0, 1, 3]), 16)
    longer = PrefixBlocks(np.array([1, 1, 2]), np.array([0, 1, 3]), 32)
    hashes = {replace(trace, prefix=prefix).content_hash for prefix in (None, trace.prefix, other, longer)}
    assert len(hashes) == 4


def test_priorities_make_another_hash():
    hashes = {replace(two_turns(), priority=given).content_hash for given in (None, np.array([0, 1]), np.array([1, 0]))}
    assert len(hashes) == 3


def test_concurrencies_make_another_hash():
    assert len({replace(two_turns(), concurrency=given).content_hash for given in (None, 1, 2)}) == 3


def test_every_column_is_looked_at():
    assert {field.name for field in fields(Trace)} == {
        *("name", "request_id", "warnings"),
        *("arrival_s", "prompt_tokens", "output_tokens", "session", "after", "delay_s", "prefix", "priority"),
        "concurrency",
    }, "a new column belongs into content_hash, and here"
