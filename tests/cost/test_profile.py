"""Profiles: what is bundled loads and says what it is; what is wrong in a file is named with file and field."""

import json
from pathlib import Path
from typing import Any

import pytest

from l4sim.calibration.datasheet import roofline_profile
from l4sim.calibration.fits.gemm import fit_gemm
from l4sim.calibration.importers.aiconfigurator import import_aiconfigurator, read_gemm_points
from l4sim.calibration.points.all_reduces import read_all_reduces
from l4sim.calibration.profile_json import write_profile
from l4sim.cost.profile import list_profiles, load_profile
from l4sim.errors import InputError
from l4sim.specs.gpu import GPUS

MEASURED = {"h200-sxm", "h100-sxm"}


def test_every_bundled_profile_loads_and_says_whether_it_was_measured() -> None:
    basis = {name: load_profile(name).basis for name in list_profiles()}
    assert set(basis) >= MEASURED | {"h20-141gb", "l40-48gb", "a100-80gb-sxm"}
    for name in ("h20-141gb", "l40-48gb", "a100-80gb-sxm"):
        assert basis[name] == "roofline, not measured"
    assert {name for name, text in basis.items() if text == "measured"} >= MEASURED


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_measured_profiles_carry_their_source_and_their_errors(name: str) -> None:
    profile = load_profile(name)
    assert "aiconfigurator @ 095f58a5" in profile.provenance.source
    assert profile.errors["linear"]["mape_pct"] <= 6
    assert profile.kernels[profile.default_kernel].errors
    assert profile.gpu == GPUS[name]


@pytest.mark.slow
def test_a_profile_loads_from_any_folder_and_its_hash_tells_its_content(tmp_path: Path) -> None:
    write_profile(roofline_profile(GPUS["l40-48gb"]), tmp_path / "a")
    write_profile(roofline_profile(GPUS["l40-48gb"]) | {"name": "other"}, tmp_path / "b")
    same, other = load_profile(str(tmp_path / "a")), load_profile(str(tmp_path / "b"))
    assert same.content_hash == load_profile("l40-48gb").content_hash
    assert other.content_hash != same.content_hash


@pytest.mark.slow
@pytest.mark.parametrize(("name", "impossible"), [("h100-sxm", 49), ("h200-sxm", 3)])
def test_the_bundled_figures_are_what_the_fits_make_of_the_points(
    measurements: Path, name: str, impossible: int
) -> None:
    stem = f"aic_{name.replace('-', '_')}_vllm0.24"
    bundled = load_profile(name)
    linear, errors = fit_gemm(read_gemm_points(measurements / f"{stem}_gemm_bf16.csv.gz"), GPUS[name])
    all_reduces = read_all_reduces(measurements / f"{stem}_allreduce.csv.gz", GPUS[name])
    assert linear.bandwidth_fraction == pytest.approx(bundled.linear.bandwidth_fraction, rel=0.01)
    assert errors.mape_pct == pytest.approx(bundled.errors["linear"]["mape_pct"], abs=0.05)
    assert errors.mape_pct <= 6
    assert errors.flagged == impossible
    for found, kept in zip(all_reduces, bundled.all_reduce, strict=False):
        assert (found.name, found.errors) == (kept.name, kept.errors)
        assert found.curve.seconds == pytest.approx(kept.curve.seconds, rel=1e-4)


def change(profile: dict[str, Any], *path: str | int, value: Any) -> dict[str, Any]:
    inner: Any = profile
    for field in path[:-1]:
        inner = inner[field]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return profile


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("measured",), "yes", "measured is 'yes'"),
        (("speed",), 1, "unknown field speed"),
        (("gpu", "sms"), ..., "gpu: sms is missing"),
        (("gpu", "memory_bytes_per_s"), -1, "gpu: memory_bytes_per_s is -1"),
        (("default_kernel",), "fa9", "default_kernel is 'fa9', accepted are"),
        (("linear", "coefficients", "launch_s"), "fast", "linear: coefficients: launch_s is 'fast'"),
        (
            ("all_reduce", "tables", 0, "curve", "seconds"),
            [1.0],
            "all_reduce: tables[0]: curve: 1 seconds for 5 size_bytes",
        ),
        (("host_overhead", "seconds"), None, "host_overhead: seconds is None"),
        (("provenance", "licence"), ..., "provenance: licence is missing"),
        (("provenance", "cuda"), "", "provenance: cuda is ''"),
        (("kernels", "fa2", "source"), 3, "kernels: fa2: source is 3, accepted is a text"),
        (
            ("all_reduce", "tables", 0, "gpus"),
            "two",
            "all_reduce: tables[0]: gpus is 'two', accepted is a whole number",
        ),
        (("all_reduce", "tables", 0, "regime"), "slow", "tables[0]: regime is 'slow', accepted is captured, eager"),
        (
            ("all_reduce", "tables", 1, "gpus"),
            2,
            "all_reduce: 2 tables of all-reduce, 2 GPUs, captured, vLLM 0.14.0, accepted is one",
        ),
        (("all_reduce", "gpus"), {"two": {}}, "all_reduce: gpus: two is not a number of GPUs"),
        (("operators", "models"), {}, "operators: models is {}, accepted is a list"),
        (("captured",), {"decodes": [1, 2, 2], "steps": []}, "captured: decodes must be ascending"),
        (
            ("captured",),
            {"decodes": [0.5], "steps": []},
            "captured: decodes[0] is 0.5, accepted is a whole number from 1",
        ),
        (("reference_s",), 0, "reference_s is 0, accepted is a number above 0"),
        (
            ("linear", "coefficients", "by_shape"),
            {"x_knots": [1, 2], "y_knots": [1, 2], "values": [[0.1, -0.1]]},
            "linear: coefficients: by_shape: values must be 2 lists of 2 numbers",
        ),
        (
            ("linear", "coefficients", "by_neighbours"),
            {"m": [1], "n": [1], "k": [1], "weights": [-0.1, 0.2]},
            "linear: coefficients: by_neighbours: lists of 1, 1, 1, 2 numbers, accepted are as many in each",
        ),
    ],
)
def test_a_broken_field_is_named_with_its_file(
    tmp_path: Path, path: tuple[str | int, ...], value: Any, message: str
) -> None:
    broken = change(roofline_profile(GPUS["l40-48gb"]), *path, value=value)
    (tmp_path / "profile.json").write_text(json.dumps(broken))
    with pytest.raises(InputError) as refusal:
        load_profile(str(tmp_path))
    assert str(refusal.value).startswith(str(tmp_path / "profile.json"))
    assert message in str(refusal.value)


def test_all_reduces_of_one_regime_are_still_read(tmp_path: Path) -> None:
    """As profiles had them that knew no more: measured ones with their errors, and rings, which the link replaces."""
    old = {"gpus": {"2": {"size_bytes": [1.0, 2.0], "seconds": [1.0, 2.0]}}, "source": "before"}
    for errors, measured in (({"points": 3}, [2]), ({}, [])):
        write_profile(roofline_profile(GPUS["a800"]) | {"all_reduce": old | {"errors": errors}}, tmp_path)
        assert [table.gpus for table in load_profile(str(tmp_path)).all_reduce if table.measured] == measured


def test_an_unknown_profile_is_answered_with_the_bundled_ones() -> None:
    with pytest.raises(InputError, match=r"no profile 'b300': accepted are .*h200-sxm.*, or a folder"):
        load_profile("b300")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected is one table"):
        import_aiconfigurator(tmp_path, GPUS["h200-sxm"])
