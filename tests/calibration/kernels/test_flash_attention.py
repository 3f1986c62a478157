"""Fits: what is left out, what is held out, and how close they come on points that they have not seen."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.calibration.fits.errors import FitReport
from l4sim.calibration.importers.aiconfigurator import read_decode_points, read_prefill_points
from l4sim.calibration.kernels import fit_kernel
from l4sim.calibration.kernels.fa3 import (
    decode_s,
    decode_work,
    possible_decodes,
    possible_prefills,
    prefill_s,
    prefill_work,
)
from l4sim.calibration.points.attention import UniformPoints, UniformTables
from l4sim.cost.attention import build_attention
from l4sim.cost.attention.fa3 import FA3Coefficients, fa3_attention
from l4sim.cost.attention.shape import Shape
from l4sim.specs.gpu import GPU, load_gpu

Fit = tuple[dict[str, Any], FitReport]


def uniform(batch: list[int], kv_heads: list[int], tokens: list[int], seconds: list[float]) -> UniformPoints:
    columns = [np.array(column, np.int64) for column in (batch, kv_heads, tokens)]
    return UniformPoints(columns[0], 4 * columns[1], columns[1], columns[2], np.array(seconds))


def test_decodes_that_beat_the_bandwidth_are_left_out(h200: GPU) -> None:
    # 64 requests of 16,384 tokens of 8 KV heads are 4.3 GB: 895 µs at 4.8 TB/s.
    points = uniform([64, 64], [8, 8], [16384, 16384], [0.9e-3, 0.8e-3])
    assert possible_decodes(points, h200).seconds.tolist() == [0.9e-3]


def test_prefills_that_beat_the_arithmetic_are_left_out(h200: GPU) -> None:
    # 32 heads, 134 million query-key pairs, 512 FLOP each: 2.22 ms at 989 TFLOP/s.
    points = uniform([1, 1], [8, 8], [16384, 16384], [2.3e-3, 2.1e-3])
    assert possible_prefills(points, h200).seconds.tolist() == [2.3e-3]


def test_an_injected_impossible_row_is_flagged_and_changes_nothing(measurements: Path, h200: GPU) -> None:
    decode = read_decode_points(measurements / "aic_h200_sxm_vllm0.24_decode_attention.csv.gz")
    seconds = decode.seconds.copy()
    worst = int(np.argmax(decode.batch * decode.tokens * decode.kv_heads))
    seconds[worst] = 1e-6
    injected = replace(decode, seconds=seconds)
    assert len(possible_decodes(injected, h200)) == len(possible_decodes(decode, h200)) - 1


def test_points_at_once_cost_what_the_model_costs_one_by_one(coefficients: Any) -> None:
    values = coefficients("fa3")
    c = FA3Coefficients(**{field.name: values[field.name] for field in fields(FA3Coefficients)})
    points = uniform([1, 4, 17, 64, 300, 1024], [8, 2, 1, 8, 4, 8], [128000, 4096, 512, 1280, 70, 2], [1.0] * 6)
    decodes, prefills = decode_s(c, decode_work(points, 132), 132), prefill_s(c, prefill_work(points, 132), 132)
    for i in range(len(points)):
        shape = {"heads": int(points.heads[i]), "kv_heads": int(points.kv_heads[i]), "head_dim": 128, "sms": 132}
        model = fa3_attention(Shape(**shape), c, warm_l2=True)
        contexts = np.full(points.batch[i], points.tokens[i], np.int64)
        prompts = tuple(Prefill(int(tokens), 0) for tokens in contexts)
        # The last split of a request is shorter than the fit takes it to be.
        assert model.attention_s(Batch(contexts, int(contexts.sum()))) == pytest.approx(decodes[i], rel=0.01)
        assert model.attention_s(Batch(contexts[:0], 0, prompts)) == pytest.approx(prefills[i])


@pytest.fixture(scope="module", params=["h200", "h100"])
def fa3_fit(request: pytest.FixtureRequest, measurements: Path) -> Fit:
    table = f"aic_{request.param}_sxm_vllm0.24_{{}}_attention.csv.gz"
    points = UniformTables(
        read_decode_points(measurements / table.format("decode")),
        read_prefill_points(measurements / table.format("prefill")),
    )
    return fit_kernel("fa3", points, load_gpu(f"{request.param}-sxm"))


@pytest.mark.slow
def test_fa3_fits_decodes_within_6_and_prefills_within_8_percent(fa3_fit: Fit) -> None:
    coefficients, report = fa3_fit
    errors = report.to_json()
    assert errors["decode"]["mape_pct"] < 6
    assert errors["prefill"]["mape_pct"] < 8
    assert errors["decode"]["points"] > 600
    assert all(isinstance(value, (int, float)) for value in coefficients.values())


@pytest.mark.slow
def test_a_fitted_model_is_built_from_what_the_fit_returns(fa3_fit: Fit) -> None:
    contexts = np.full(64, 1024, np.int64)
    model = build_attention("fa3", fa3_fit[0], heads=32, kv_heads=8, head_dim=128, sms=132, model="skew")
    # Measured: 80.7 µs on H200, 119.4 on H100.
    assert 70e-6 < model.attention_s(Batch(contexts, 65536)) < 125e-6
