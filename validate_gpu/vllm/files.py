"""Lines of JSON that are on disk soon after they were written, and compressed: a killed engine leaves what it did."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

_FLUSH_S = 1.0

Row = Callable[[], dict[str, Any]]


class JsonLines:
    """Writes objects into ``*.jsonl.gz``, one a line; a thread of its own makes, encodes and compresses them.

    Every second's lines are a gzip file of their own behind the ones before, which together are one gzip file: at any
    moment the file ends with a whole line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._path.write_bytes(b"")
        self._rows: list[Row] = []
        self._encoder = msgspec.json.Encoder()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"l4sim-{path.name}", daemon=True)
        self._thread.start()

    def write(self, row: Row) -> None:
        """Take what makes one object, of things that do not change any more; costs the caller nothing but an append."""
        self._rows.append(row)

    def close(self) -> None:
        """Write what is left."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(_FLUSH_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        lines = []
        for row in rows:
            lines.append(self._encoder.encode(row()))
            # The engine's thread may want to go on: it would else wait for as long as Python lets a thread run.
            time.sleep(0)
        if lines:
            with self._path.open("ab") as file:
                file.write(gzip.compress(b"\n".join([*lines, b""]), compresslevel=6, mtime=0))
