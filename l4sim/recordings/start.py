"""Starting vLLM so that it records its run: needs nothing but Python, as it is used in vLLM's own environment."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from l4sim.errors import InputError

SCHEDULER = "validate_gpu.vllm.scheduler.recording_scheduler"
"""What vLLM takes as its ``scheduler_cls``."""

FOLDER = "L4SIM_RECORD"
"""The environment variable that tells the engine's process where to."""

_PACKAGES = Path(__file__).resolve().parents[2]
_RECORDER = "validate_gpu"

EngineArgs = TypeVar("EngineArgs")


@contextmanager
def record(engine_args: EngineArgs, out: str | Path) -> Iterator[EngineArgs]:
    """Record the run of a vLLM engine that is made inside the ``with`` block::

        with l4sim.record(AsyncEngineArgs(model="..."), "runs/mine") as engine_args:
            llm = AsyncLLM.from_engine_args(engine_args)

    The recording goes on until the engine is shut down. It is a folder with ``meta.json``, ``config.json``,
    ``requests.jsonl.gz`` and ``iterations.jsonl.gz`` (`docs/recordings.md`), each complete up to the last second even
    if the engine is killed. vLLM is not changed: it loads the scheduler that its configuration names, which is its own
    and writes down what it decides.

    ``engine_args`` are vLLM's ``EngineArgs`` or ``AsyncEngineArgs``; they come back as a copy. Source: ours.

    Raises:
        InputError: the folder holds a recording already, or the engine has a scheduler of its own.
    """
    chosen = getattr(engine_args, "scheduler_cls", None)
    if chosen is not None:
        raise InputError(f"scheduler_cls is {chosen!r}: only vLLM's own schedulers can be recorded")
    before = os.environ.get(FOLDER)
    os.environ[FOLDER] = str(_new_folder(Path(out)))
    try:
        recorded: Any = dataclasses.replace(engine_args, scheduler_cls=SCHEDULER)  # type: ignore[type-var]
        yield recorded
    finally:
        if before is None:
            del os.environ[FOLDER]
        else:
            os.environ[FOLDER] = before


def record_command(command: Sequence[str], out: Path) -> int:
    """Run a vLLM command with its engine recorded; returns its exit code, 0 if it was interrupted.

    Signals to end go on to the command, which ends as it would by itself.

    Raises:
        InputError: the folder holds a recording already, the engine has a scheduler of its own, or the command cannot
            be run.
    """
    if any(part.split("=")[0] in ("--scheduler-cls", "--scheduler_cls") for part in command):
        raise InputError("--scheduler-cls is given: only vLLM's own schedulers can be recorded")
    folder = _new_folder(out)
    with tempfile.TemporaryDirectory() as only_recorder:
        # A link to one package: this environment's other packages are not to be found by vLLM's.
        (Path(only_recorder) / _RECORDER).symlink_to(_PACKAGES / _RECORDER)
        paths = [only_recorder, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, FOLDER: str(folder), "PYTHONPATH": os.pathsep.join(paths)}
        try:
            # In a session of its own: Ctrl-C would else reach it twice, which vLLM takes as "at once".
            running = subprocess.Popen(
                [*command, "--scheduler-cls", SCHEDULER], env=environment, start_new_session=True
            )
        except OSError as error:
            raise InputError(f"{command[0]}: cannot be run ({error.strerror})") from None
        return _wait(running)


def recorded_folders(out: Path) -> list[Path]:
    """Where recordings are: the folder itself, or one below it for each data-parallel engine."""
    return [path.parent for path in (out / "meta.json", *sorted(out.glob("engine-*/meta.json"))) if path.is_file()]


def _new_folder(out: Path) -> Path:
    held = recorded_folders(out)
    if held:
        raise InputError(f"{held[0]}: holds a recording already; name another folder")
    return out.absolute()


def _wait(running: subprocess.Popen[bytes]) -> int:
    interrupted = False

    def pass_on(number: int, _: object) -> None:
        nonlocal interrupted
        interrupted = True
        running.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = running.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0 if interrupted else code
