"""A path finds its importer; what an importer does not take, or lacks, is refused before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from l4sim.calibration.importers import IMPORTERS, import_profile
from l4sim.calibration.importers.importer import Given
from l4sim.errors import InputError
from l4sim.specs.gpu import GPUS
from l4sim.specs.model import load_model

GPU = GPUS["h200-sxm"]


def importer_of(path: Path) -> str:
    return next(importer.name for importer in IMPORTERS if importer.reads(path))


def test_a_path_is_told_by_what_is_there(tmp_path: Path) -> None:
    assert importer_of(tmp_path) == "LLMServingSim"
    (tmp_path / "gemm_perf.csv").write_text("m,n,k,latency\n")
    assert importer_of(tmp_path) == "aiconfigurator"
    assert importer_of(tmp_path / "gemm_perf.csv") == "Vidur or Frontier"


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such file or folder"):
        import_profile(tmp_path / "nowhere", GPU, Given())


@pytest.mark.parametrize(
    "given", [Given(model=load_model("llama-3.1-8b")), Given(tensor_parallel=2), Given(host_overhead_s=1e-3)]
)
def test_what_a_source_says_itself_may_not_be_given(tmp_path: Path, given: Any) -> None:
    path = tmp_path / "attention.csv"
    path.write_text("n_embd\n")
    with pytest.raises(InputError, match=r"--model, --tensor-parallel and --host-overhead-ms are for LLMServingSim's"):
        import_profile(path, GPU, given)


def test_what_a_source_does_not_say_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--model is missing: the model that LLMServingSim measured"):
        import_profile(tmp_path, GPU, Given(tensor_parallel=2))
