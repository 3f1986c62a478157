from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from l4sim.cli import main
from l4sim.workload.load import load_trace

TRACE = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,374,44\n1.0,396,0\n4.0,40000,9\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "vidur.csv"
    file.write_text(TRACE)
    return file


def run(*arguments: object) -> None:
    """Run a command that should succeed."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 0


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that should be refused; what it says."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_info_prints_tables_and_warnings(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("trace", "info", path)
    printed = capsys.readouterr().out
    assert "0.500 requests/s" in printed
    assert "40,000" in printed
    assert "98.00%" in printed  # 40,009 of the 40,824 tokens lie beyond 32K
    assert "warning: 1 of 3 requests have no output tokens: 1 is assumed" in printed


def test_info_prints_json_alone_on_stdout(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("trace", "info", path, "--json", "--limit", "2")
    statistics = json.loads(capsys.readouterr().out)
    assert statistics["requests"] == 2
    assert statistics["prompt_tokens"]["mean"] == 385
    assert statistics["warnings"] == ["1 of 3 requests have no output tokens: 1 is assumed"]


def test_info_reads_as_it_is_told(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("trace", "info", path, "--json", "--format", "vidur", "--time-unit", "ms")
    assert json.loads(capsys.readouterr().out)["duration_s"] == 0.004
    run("trace", "info", path, "--json", "--dejitter", "100")
    assert json.loads(capsys.readouterr().out)["duration_s"] > 4


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.parquet"])
def test_convert_writes_what_loads_again(name: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = path.parent / name
    run("trace", "convert", path, out)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "warning: 1 of 3 requests have no output tokens" in printed.err
    again = load_trace(out)
    assert again.arrival_s.tolist() == [0, 1, 4]
    assert again.prompt_tokens.tolist() == [374, 396, 40_000]
    assert again.output_tokens.tolist() == [44, 1, 9]


def test_convert_refuses_a_suffix_that_stands_for_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ".jsonl, .jsonl.gz or .parquet" in refused(capsys, "trace", "convert", path, path.parent / "out.csv")
    assert "ends with .parquet" in refused(
        capsys, "trace", "convert", path, path.parent / "out.jsonl", "--to", "parquet"
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--time-unit", "h"], "'h' is not one of 'auto', 'ns', 'us', 'ms', 's'"),
        (["--format", "vidour"], "unknown trace format 'vidour'; known are auto, azure"),
        (["--limit", "0"], "the limit must be at least 1 request, not 0"),
        (["--limit", "many"], "'many' is not a valid integer"),
        (["--dejitter", "-1"], "the tick must be a positive number"),
        (["--tokenizer", "x"], "No such option"),
    ],
)
def test_wrong_options_are_refused_by_name(
    arguments: list[str], named: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refused(capsys, "trace", "info", path, *arguments)


def test_the_group_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    run("trace", "--help")
    printed = capsys.readouterr().out
    assert [command in printed for command in ("info", "convert", "synth")] == [True] * 3


@pytest.mark.slow
def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from l4sim.cli import main\n"
        "try:\n    main(['trace', 'info', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'pandas', 'scipy.stats', 'pyarrow', 'matplotlib', 'rich', 'simpy'}\n"
        "print(*(heavy & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == ""
