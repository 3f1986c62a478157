"""Starting vLLM so that it records its run: needs nothing but Python, as it is used in vLLM's own environment."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from l4sim.errors import InputError

SCHEDULER = "validate_gpu.vllm.scheduler.recording_scheduler"
"""What vLLM takes as its ``scheduler_cls``."""

FOLDER = "L4SIM_RECORD"
"""The environment variable that tells the engine's process where to."""

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
    os.environ[FOLDER] = str(recording_folder(Path(out)))
    try:
        recorded: Any = dataclasses.replace(engine_args, scheduler_cls=SCHEDULER)  # type: ignore[type-var]
        yield recorded
    finally:
        if before is None:
            del os.environ[FOLDER]
        else:
            os.environ[FOLDER] = before


def recording_folder(out: Path) -> Path:
    """The folder for a new recording, as an absolute path.

    Raises:
        InputError: it holds one already.
    """
    held = [path for path in (out / "meta.json", *out.glob("engine-*/meta.json")) if path.is_file()]
    if held:
        raise InputError(f"{held[0].parent}: holds a recording already; name another folder")
    return out.absolute()
