"""Measured folders: what is read, what is fitted, and what too little or damage is answered with."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from l4sim.batch import Batch, Prefill
from l4sim.calibration.measured.fit import fit_measured
from l4sim.calibration.measured.folder import (
    IterationPoint,
    Measured,
    ModelKey,
    is_measured,
    read_by_model,
    read_iterations,
    read_measured,
)
from l4sim.calibration.measured.operators import (
    Iterations,
    fit_elementwise,
    fit_host_overhead,
    fit_operators,
    left_out_errors,
)
from l4sim.cost.attention.shape import Shape
from l4sim.cost.attention.torch_cpu import TorchCpuAttention, TorchCpuCoefficients
from l4sim.cost.captured import Captured
from l4sim.cost.curve import Curve
from l4sim.cost.operators import MeasuredOperators
from l4sim.cost.profile import Provenance
from l4sim.errors import InputError
from l4sim.specs.gpu import GPUS

GPU = GPUS["h200-sxm"]
MODEL = "small,32,48,4,2,16,97"
SIZES = {"hidden": 32, "intermediate": 48, "heads": 4, "kv_heads": 2, "head_dim": 16, "vocab": 97}
SHAPE = Shape(4, 2, 16, 1)
MODEL_HEADER = "model,hidden,intermediate,heads,kv_heads,head_dim,vocab"


def write(folder: Path, table: str, header: str, rows: list[str]) -> Path:
    (folder / f"{table}.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def layers_table(folder: Path, tokens: list[int]) -> None:
    """A layer takes 10 us and 1 us per token; the rest 3 us, of which the head of one sequence 2 us."""
    rows = [f"{MODEL},{count},{layers},{(layers * (10 + count) + 3) * 1e-6}" for count in tokens for layers in (0, 4)]
    write(folder, "layers", f"{MODEL_HEADER},tokens,layers,median_s", rows)
    heads = [f"{MODEL},{n},{(1 + n) * 1e-6}" for n in (8, 1, 64)]
    write(folder, "sampled", f"{MODEL_HEADER},sequences,median_s", heads)


def test_what_was_measured_is_read_back(tmp_path: Path) -> None:
    provenance = Provenance("2026-01-01", "a test", "Apache-2.0", None, "580", "13.0", "2.11", None)
    measured = Measured("folder", GPU, provenance, "flashinfer-tensor")
    assert not is_measured(tmp_path)
    (tmp_path / "measured.json").write_text(json.dumps(asdict(measured)))
    assert is_measured(tmp_path)
    assert read_measured(tmp_path) == measured
    at_a_speed = replace(measured, reference_s=1.5e-3)
    (tmp_path / "measured.json").write_text(json.dumps(asdict(at_a_speed)))
    assert read_measured(tmp_path) == at_a_speed
    (tmp_path / "measured.json").write_text(json.dumps({**asdict(measured), "mood": "good"}))
    with pytest.raises(InputError, match=r"measured\.json: unknown field mood"):
        read_measured(tmp_path)


def test_rows_are_told_apart_by_model(tmp_path: Path) -> None:
    header = f"{MODEL_HEADER},tokens,median_s"
    write(tmp_path, "layers", header, ["a,32,48,4,2,16,97,1,0.5", "b,64,48,4,2,16,97,1,0.7", "a,32,48,4,2,16,97,2,0.6"])
    found = {key.model: (key.sizes.hidden, sizes.tolist(), seconds.tolist()) for key, (sizes, seconds) in read_by_model(
        tmp_path, "layers", ("tokens",)
    ).items()}  # fmt: skip
    assert found == {"a": (32, [[1], [2]], [0.5, 0.6]), "b": (64, [[1]], [0.7])}


def test_of_a_point_measured_several_times_the_median_counts(tmp_path: Path) -> None:
    header = f"{MODEL_HEADER},tokens,median_s"
    write(tmp_path, "layers", header, [f"{MODEL},{tokens},{s}" for tokens, s in ((1, 5), (2, 8), (1, 4), (1, 9))])
    ((sizes, seconds),) = read_by_model(tmp_path, "layers", ("tokens",)).values()
    assert (sizes.tolist(), seconds.tolist()) == ([[1], [2]], [5.0, 8.0])
    header = f"{MODEL_HEADER},layers,context_tokens,chunks,median_s"
    rows = [f"{MODEL},2,{contexts},,{s}" for contexts, s in (("1*5", 3), ("2*5", 7), ("1*5", 4))]
    ((one, two),) = read_iterations(write(tmp_path, "iterations", header, rows)).values()
    assert (one.seconds, two.seconds) == (3.5, 7.0)


def test_iterations_are_batches(tmp_path: Path) -> None:
    header = f"{MODEL_HEADER},layers,context_tokens,chunks,median_s"
    write(tmp_path, "iterations", header, [f"{MODEL},2,2*17 1*5,20+30,0.001"])
    ((point,),) = read_iterations(tmp_path).values()
    assert (point.layers, point.seconds) == (2, 0.001)
    assert point.batch.decode_context_tokens.tolist() == [17, 17, 5]
    assert point.batch.prefills == (Prefill(20, 30),)
    assert read_iterations(tmp_path / "elsewhere") == {}


def test_a_layer_is_the_difference_of_two_passes(tmp_path: Path) -> None:
    layers_table(tmp_path, [64, 1, 16])
    ((operators, report),) = fit_operators(tmp_path).values()
    assert operators.layer.at([1, 16, 40, 64]) == pytest.approx([11e-6, 26e-6, 50e-6, 74e-6])
    assert operators.once.at([1, 64]) == pytest.approx([1e-6, 1e-6])
    assert operators.sampled.at([1, 8, 64]) == pytest.approx([2e-6, 9e-6, 65e-6])
    assert (asdict(operators.sizes), operators.tensor_parallel) == (SIZES, 1)
    assert (report.points, report.worst_pct) == (1, pytest.approx(0, abs=1e-6))


def test_a_pass_without_its_partner_does_not_count(tmp_path: Path) -> None:
    layers_table(tmp_path, [1, 16])
    path = tmp_path / "layers.csv"
    path.write_text(path.read_text() + f"{MODEL},64,1,0.5\n")
    with pytest.raises(InputError, match=r"layers\.csv: 2 numbers of tokens of small with two numbers of layers"):
        fit_operators(tmp_path)


def test_a_model_without_its_head_is_named(tmp_path: Path) -> None:
    layers_table(tmp_path, [1, 16, 64])
    write(tmp_path, "sampled", f"{MODEL_HEADER},sequences,median_s", ["other,32,48,4,2,16,97,1,0.5"])
    with pytest.raises(InputError, match=r"sampled\.csv: no rows of small, which layers\.csv has"):
        fit_operators(tmp_path)


def test_elementwise_operators_give_a_launch_and_a_bandwidth(tmp_path: Path) -> None:
    rows = [f"{size},{3e-6 + size / 2.4e12}" for size in (1000, 10**6, 10**8, 10**9)]
    fitted, few = fit_elementwise(write(tmp_path, "elementwise", "size_bytes,median_s", rows), GPU)
    assert few is None, "too few points to hold some of them out"
    assert fitted.kernel_s == pytest.approx(3e-6)
    assert fitted.bandwidth_fraction == pytest.approx(0.5)


def test_the_host_is_what_operators_do_not_explain() -> None:
    line = Curve((1.0, 101.0), (1e-3, 2e-3))
    operators = MeasuredOperators(**SIZES, tensor_parallel=1, layer=line, once=Curve((1.0,), (5e-4,)), sampled=line)
    attention = TorchCpuAttention(SHAPE, TorchCpuCoefficients(1e-4, 0.0, 0.0, 0.0, 0.0))
    # One token, 3 layers: 3 x (1 + 0.1) + 0.5 + 1 ms.
    batch = Batch(np.array([7]), 7)
    points = [IterationPoint(3, batch, 4.8e-3 + host_s) for host_s in (2e-3, 9e-3, 3e-3, 3e-3, 4e-3, 3e-3)]
    host, report = fit_host_overhead([Iterations(points, operators, SHAPE, attention)])
    # Without any prompts, what decodes take is all that is known of them.
    assert asdict(host) == pytest.approx({"decode_s": 3e-3, "prompt_s": 3e-3, "sequence_s": 0.0})
    # Held out: 9, 3 and 3 ms of host.
    assert report.points == 3
    assert report.worst_pct == pytest.approx(100 * (1 - 7.8 / 13.8))


def test_the_hosts_part_differs_with_prompts_and_grows_with_sequences() -> None:
    level = Curve((1.0, 64.0), (1e-3, 1e-3))
    operators = MeasuredOperators(**SIZES, tensor_parallel=1, layer=level, once=level, sampled=level)
    attention = TorchCpuAttention(SHAPE, TorchCpuCoefficients(0.0, 0.0, 0.0, 0.0, 0.0))
    curves_s = 3e-3

    def decodes(requests: int) -> IterationPoint:
        contexts = np.full(requests, 7)
        return IterationPoint(1, Batch(contexts, int(contexts.sum())), curves_s + 2e-3 + 1e-5 * requests)

    prompt = IterationPoint(1, Batch(np.empty(0, np.int64), 0, (Prefill(4, 0),)), curves_s + 5e-3 + 1e-5)
    points = [point for requests in (1, 8, 64) for point in (decodes(requests), decodes(requests))] + [prompt]
    host, report = fit_host_overhead([Iterations(points, operators, SHAPE, attention)])
    assert asdict(host) == pytest.approx({"decode_s": 2e-3, "prompt_s": 5e-3, "sequence_s": 1e-5})
    assert report.worst_pct == pytest.approx(0, abs=1e-6)


def test_what_is_padded_takes_as_long_as_what_it_is_padded_to() -> None:
    line, none = Curve((1.0, 101.0), (1e-3, 101e-3)), Curve((1.0,), (0.0,))
    operators = MeasuredOperators(**SIZES, tensor_parallel=1, layer=line, once=none, sampled=none)
    attention = TorchCpuAttention(SHAPE, TorchCpuCoefficients(0.0, 0.0, 0.0, 0.0, 0.0))
    three, five = Batch(np.full(3, 7), 21), Batch(np.empty(0, np.int64), 0, (Prefill(5, 0),))
    # Decodes run as 4 rows, the prompt as 8.
    points = [IterationPoint(1, batch, seconds) for batch, seconds in ((three, 5e-3), (three, 5e-3), (five, 10e-3))]
    host, _ = fit_host_overhead([Iterations(points, operators, SHAPE, attention)], Captured((2, 4), (8,)))
    assert (host.decode_s, host.prompt_s) == pytest.approx((1e-3, 2e-3))


def test_captured_sizes_between_points_follow_the_stairs(tmp_path: Path) -> None:
    layers_table(tmp_path, [1, 16, 64])

    def stairs(_: ModelKey, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(tokens > 32, 4.0, 1.0)

    ((operators, _),) = fit_operators(tmp_path, stairs, Captured(steps=(8, 32, 48, 96))).values()
    # Measured: 26 us at 16 tokens and 74 at 64, ratios to the stairs of 26 and 18.5.
    assert operators.layer.at([16, 32, 48, 64]) == pytest.approx([26e-6, 23.5e-6, 4 * 21e-6, 74e-6])


def test_a_point_is_predicted_by_its_neighbours() -> None:
    report = left_out_errors([(np.array([1.0, 2.0, 4.0]), np.array([1.0, 4.0, 4.0]))])
    # A third of the way from 1 to 4 is 2, half of the 4 that were measured.
    assert (report.points, report.mape_pct) == (1, pytest.approx(50))


@pytest.mark.parametrize("missing", ["attention", "linear", "elementwise", "layers", "sampled"])
def test_a_missing_table_asks_for_more_time(tmp_path: Path, missing: str) -> None:
    provenance = Provenance(None, "a test", "Apache-2.0", None, None, None, None, None)
    (tmp_path / "measured.json").write_text(json.dumps(asdict(Measured("folder", GPU, provenance, "torch-cpu"))))
    for table in ("attention", "linear", "elementwise", "layers", "sampled"):
        if table != missing:
            write(tmp_path, table, "", [])
    with pytest.raises(InputError, match=rf"no {missing}\.csv yet: measure for longer"):
        fit_measured(tmp_path)
