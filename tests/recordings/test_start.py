"""Starting vLLM so that it records: what it is told, and that nothing else of this environment reaches it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import l4sim
from l4sim.cli import main
from l4sim.errors import InputError
from l4sim.recordings.start import FOLDER, SCHEDULER

# Stands for vLLM: says what it was given, and leaves a recording.
VLLM = """
import json, os, pathlib, sys
folder = pathlib.Path(os.environ["L4SIM_RECORD"])
folder.mkdir(parents=True, exist_ok=True)
import importlib.util
found = {name: importlib.util.find_spec(name) is not None for name in ("validate_gpu", "l4sim")}
(folder / "meta.json").write_text(json.dumps({"argv": sys.argv[1:], "found": found}))
"""


@dataclass(frozen=True)
class EngineArgs:
    """As much of vLLM's as matters."""

    model: str
    scheduler_cls: str | None = None


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["record", *arguments])
    return int(stopped.value.code or 0)


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command in an environment that has nothing of l4sim's."""
    script = tmp_path / "vllm.py"
    script.write_text(VLLM)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    # Without site-packages, where l4sim may be installed, and in another folder.
    return [sys.executable, "-S", str(script)]


def test_an_engine_made_inside_records_itself(tmp_path: Path) -> None:
    given = EngineArgs("tiny")
    with l4sim.record(given, tmp_path / "mine") as recorded:
        assert recorded == EngineArgs("tiny", SCHEDULER)
        assert os.environ[FOLDER] == str(tmp_path / "mine")
    assert FOLDER not in os.environ
    assert given.scheduler_cls is None


def test_the_scheduler_reads_the_folder_where_it_is_told() -> None:
    source = (Path(l4sim.__file__).parents[1] / "validate_gpu" / "vllm" / "scheduler.py").read_text()
    assert f'FOLDER = "{FOLDER}"' in source
    assert f"def {SCHEDULER.rpartition('.')[2]}(" in source


def test_another_scheduler_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scheduler_cls is 'mine\.Own': only vLLM's own schedulers can be recorded"):
        l4sim.record(EngineArgs("tiny", "mine.Own"), tmp_path).__enter__()


def test_a_folder_that_holds_a_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(InputError, match="holds a recording already; name another folder"):
        l4sim.record(EngineArgs("tiny"), tmp_path).__enter__()


@pytest.mark.slow
def test_a_command_gets_the_scheduler_and_the_recorder_alone(
    tmp_path: Path, vllm: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    assert run("--out", str(out), "--", *vllm, "serve", "tiny", "--port", "8000") == 0
    told = json.loads((out / "meta.json").read_text())
    assert told["argv"] == ["serve", "tiny", "--port", "8000", "--scheduler-cls", SCHEDULER]
    assert told["found"] == {"validate_gpu": True, "l4sim": False}
    assert f"recorded: {out}" in capsys.readouterr().err


def test_a_command_that_runs_no_engine_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--out", str(tmp_path / "mine"), sys.executable, "-c", "pass") == 1
    assert "nothing was recorded" in capsys.readouterr().err


def test_a_command_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--out", str(tmp_path / "mine"), "--", "no-such-vllm", "serve") == 2
    assert capsys.readouterr().err == "l4sim: no-such-vllm: cannot be run (No such file or directory)\n"


@pytest.mark.slow
def test_an_interrupt_reaches_the_command_once_and_is_no_failure(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(
        VLLM + "import signal, time\n"
        "signal.signal(signal.SIGINT, lambda *_: (folder / 'stopped').open('a').write('x') and sys.exit(3))\n"
        "(folder / 'up').touch()\n"
        "time.sleep(30)\n"
    )
    out = tmp_path / "mine"
    command = [sys.executable, "-m", "l4sim", "record", "--out", str(out), "--", sys.executable, str(script)]
    recording = subprocess.Popen(command, start_new_session=True)
    while not (out / "up").exists():
        time.sleep(0.02)
    os.killpg(recording.pid, signal.SIGINT)
    assert recording.wait(20) == 0
    assert (out / "stopped").read_text() == "x"
