"""``l4sim trace synth``: what it writes, what it tells, what it refuses; and the example traces that it made."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from l4sim.bundled import folder
from l4sim.cli import main
from l4sim.workload.load import load_trace
from l4sim.workload.prefix_runs import blocks_of
from l4sim.workload.synth import Poisson, Sessions, preset, synthesize

README = (folder("traces") / "README.md").read_text()
RECIPES = {
    Path(command.split()[3]).name: command
    for command in re.findall(r"^    (l4sim trace synth .*)$", README, re.MULTILINE)
}


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["trace", "synth", *arguments])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.mark.slow
def test_the_file_holds_what_the_library_makes_from_the_same_parameters(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    options = "--preset chat --requests 50 --rate 4 --turns 3 --think 5 --system-tokens 100 --block-size 64 --seed 9"
    assert run(str(out), *options.split()) == 0
    sessions = Sessions(3.0, 5.0, system_tokens=100, block_tokens=64)
    made = synthesize(preset("chat").lengths, Poisson(4.0), requests=50, sessions=sessions, seed=9)
    loaded = load_trace(out)
    assert np.array_equal(loaded.arrival_s, made.arrival_s, equal_nan=True)
    assert np.array_equal(loaded.prompt_tokens, made.prompt_tokens)
    assert np.array_equal(loaded.after, made.after)
    assert loaded.prefix is not None
    assert made.prefix is not None
    assert np.array_equal(loaded.prefix.ids, made.prefix.ids)


def test_sessions_keep_their_turns_and_shared_prefixes_in_mooncake_json_lines(tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl.gz"
    options = "--preset chat --requests 60 --rate 4 --turns 3 --think 5 --system-tokens 1024 --seed 9"
    assert run(str(out), *options.split()) == 0
    loaded = load_trace(out)
    assert loaded.warnings == ()
    assert (loaded.after >= 0).any()
    for row, previous in enumerate(loaded.after):
        if previous >= 0:
            assert loaded.prompt_tokens[row] > loaded.prompt_tokens[previous] + loaded.output_tokens[previous]
    assert loaded.prefix is not None
    blocks = blocks_of(loaded.prefix, loaded.prompt_tokens, 512)
    starts = blocks.offsets[:-1]
    assert len(set(blocks.ids[starts])) == len(set(blocks.ids[starts + 1])) == 1


@pytest.mark.parametrize(
    "options",
    [
        "--arrivals constant --rate 5",
        "--arrivals gamma --rate 5 --cv 2",
        "--arrivals weibull --rate 5 --cv 2",
        "--arrivals onoff --rate 5 --on 3 --off 9 --off-ratio 0.1",
        "--arrivals diurnal --rate 5 --amplitude 0.5 --period 100 --peak 20",
        "--arrivals piecewise --segments 10:5,10:1",
    ],
)
def test_every_arrival_process_can_be_asked_for(tmp_path: Path, options: str) -> None:
    out = tmp_path / "t.jsonl"
    assert run(str(out), "--preset", "chat", "--duration", "60", *options.split()) == 0
    assert len(load_trace(out)) > 60


def test_lengths_may_come_from_another_trace_row_by_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "source.csv", tmp_path / "t.jsonl"
    source.write_text("timestamp_s,client_id,input_tokens,output_tokens\n0,a,10,0\n1,a,20,2\n")
    assert run(str(out), "--lengths-from", str(source), "--requests", "40", "--rate", "1") == 0
    made = load_trace(out)
    assert set(zip(made.prompt_tokens, made.output_tokens, strict=True)) == {(10, 1), (20, 2)}
    (zero_output, *_) = load_trace(source).warnings
    assert f"warning: {source}: {zero_output}\n" in capsys.readouterr().err


def test_a_given_distribution_and_correlation_replace_the_presets(tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    options = "--preset chat --output-lengths zipf:exponent=1,max_tokens=5 --correlation 1 --requests 200 --rate 1"
    assert run(str(out), *options.split()) == 0
    made = load_trace(out)
    assert set(made.output_tokens) == {1, 2, 3, 4, 5}
    assert (np.diff(made.output_tokens[np.argsort(made.prompt_tokens)]) >= 0).all()


def test_what_was_made_is_told_and_warnings_go_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "t.jsonl"
    options = (
        "--prompt-lengths fixed:tokens=90 --output-lengths fixed:tokens=20 --requests 4 --rate 1 --arrivals constant"
    )
    assert run(str(out), *options.split(), "--max-model-len", "100") == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        f"{out}: 4 requests, the last open-loop arrival at 4.0 s",
        "  prompt tokens: mean 80, p50 80, p99 80, max 80",
        "  output tokens: mean 20, p50 20, p99 20, max 20",
    ]
    assert told.err == (
        "warning: context limit of 100 tokens: the prompts of 4 and the outputs of 0 of 4 requests were clipped\n"
    )


def test_json_is_all_that_stdout_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "t.jsonl"
    options = "--preset chat --requests 6 --rate 1 --turns 2 --think 1 --max-model-len 100000 --json"
    assert run(str(out), *options.split()) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == str(out)
    assert told["requests"] == 6
    assert told["sessions"] == len(set(load_trace(out).session))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--preset chta --requests 5 --rate 1", r"'chta' is not one of 'chat', 'agentic-coding', 'long-reasoning'"),
        ("--requests 5 --rate 1", r"give --preset \(chat, .*\), or both --prompt-lengths and --output-lengths"),
        ("--prompt-lengths fixed:tokens=1 --requests 5 --rate 1", r"or both --prompt-lengths and --output-lengths"),
        ("--preset chat --lengths-from x.csv --requests 5 --rate 1", r"--preset does not apply with --lengths-from"),
        ("--preset chat --output-lengths nil:a=1 --requests 5 --rate 1", r"unknown length distribution 'nil'"),
        ("--preset chat --rate 1", r"give either --requests N or --duration S"),
        ("--preset chat --rate 1 --requests 5 --duration 5", r"give either --requests N or --duration S"),
        ("--preset chat --requests 0 --rate 1", r"requests must be an integer >= 1, not 0"),
        ("--preset chat --requests 5", r"poisson arrivals need --rate"),
        ("--preset chat --requests 5 --rate -1", r"the rate must be a number > 0 per second, not -1"),
        ("--preset chat --requests 5 --rate 1 --cv 2", r"--cv does not apply to poisson arrivals, which take --rate"),
        ("--preset chat --requests 5 --rate 1 --arrivals gamma", r"gamma arrivals need --cv; they take --rate, --cv"),
        (
            "--preset chat --requests 5 --rate 1 --arrivals piecewise --segments 5:1",
            r"--rate does not apply to piecewise arrivals, which take --segments",
        ),
        ("--preset chat --requests 5 --arrivals piecewise --segments 5", r"'5' must be SECONDS:RATE"),
        ("--preset chat --requests 5 --rate 1 --think 5", r"--think applies only to sessions: give --turns"),
        ("--preset chat --requests 5 --rate 1 --turns 5", r"sessions need --think"),
        ("--preset chat --requests 5 --rate 1 --over-limit drop", r"--over-limit applies only with --max-model-len"),
        ("--preset chat --requests 5 --rate 1 --seed -1", r"seed must be an integer >= 0"),
        ("--preset chat --requests 5 --rate 1 --bursts 2", r"No such option.*--bursts"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    out = tmp_path / "t.jsonl"
    assert run(str(out), *options.split()) == 2
    told = capsys.readouterr()
    assert re.search(message, told.err)
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert not out.exists()


def test_a_file_name_of_no_known_format_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path / "t.csv"), "--preset", "chat", "--requests", "5", "--rate", "1") == 2
    assert ".jsonl, .jsonl.gz or .parquet" in capsys.readouterr().err


def test_the_readme_has_a_recipe_for_every_example_trace() -> None:
    assert sorted(RECIPES) == sorted(path.name for path in folder("traces").glob("*.gz"))


@pytest.mark.parametrize("name", RECIPES)
def test_an_example_trace_comes_out_of_its_recipe_again(tmp_path: Path, name: str) -> None:
    arguments = shlex.split(RECIPES[name])
    assert arguments[3] == f"traces/{name}"
    assert run(str(tmp_path / name), *arguments[4:]) == 0
    bundled = (folder("traces") / name).read_bytes()
    assert gzip.decompress((tmp_path / name).read_bytes()) == gzip.decompress(bundled)
    assert len(bundled) <= 300_000
    assert bundled[4:8] == bytes(4), "the gzip header holds a time stamp"
