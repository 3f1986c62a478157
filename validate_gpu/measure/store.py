"""Finished points on disk: one CSV per operator, only ever appended to, so that an interruption costs one point."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from l4sim.calibration.measured.folder import MEASURED, Measured, read_measured
from l4sim.calibration.points.tables import read_rows
from l4sim.errors import InputError
from validate_gpu.measure.points import Point, Sample

_FAILURES = "failures.csv"
_FAILURE_COLUMNS = ("table", "point", "reason")
_SAMPLE_COLUMNS = ("median_s", "spread_s", "repeats", "timed", "reference_error", "slowness", "clock_mhz")

Key = tuple[str, tuple[str, ...]]


class Store:
    """The measured folder: what is in it already, and how more is added."""

    def __init__(self, folder: Path, measured: Measured) -> None:
        """Open a folder, made if need be, for points of one device.

        Raises:
            InputError: it holds points of another device or other software, or a table that cannot be read.
        """
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / MEASURED).is_file():
            _check_same(folder, read_measured(folder), measured)
        else:
            (folder / MEASURED).write_text(json.dumps(asdict(measured), indent=2) + "\n", encoding="utf-8")
        self._measured: Counter[Key] = Counter()
        self._failed: set[Key] = set()
        for path in sorted(folder.glob("*.csv")):
            _drop_torn_line(path)
            if path.name != _FAILURES and path.stat().st_size:
                self._measured.update(_finished(path))
        if (folder / _FAILURES).is_file():
            self._failed |= {
                (row["table"], tuple(json.loads(row["point"])))
                for _, row in read_rows(folder / _FAILURES, _FAILURE_COLUMNS)
            }

    def has(self, point: Point, times: int = 1) -> bool:
        """Whether a point has been measured so many times, or has failed, before."""
        key = _key(point)
        return self._measured[key] >= times or key in self._failed

    def add(self, point: Point, sample: Sample, clock_mhz: float) -> None:
        """Keep a finished point; it is on disk when this returns."""
        row = {**point.columns(), **sample.columns(), "clock_mhz": f"{clock_mhz:.0f}"}
        self._append(f"{point.table}.csv", tuple(row), tuple(row.values()))
        self._measured[_key(point)] += 1

    def fail(self, point: Point, reason: str) -> None:
        """Keep why a point could not be measured; it is not tried again unless ``failures.csv`` is deleted."""
        table, values = _key(point)
        self._append(_FAILURES, _FAILURE_COLUMNS, (table, json.dumps(values), reason))
        self._failed.add((table, values))

    def _append(self, name: str, columns: tuple[str, ...], values: tuple[str, ...]) -> None:
        path = self._folder / name
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not path.is_file() or not path.stat().st_size:
            writer.writerow(columns)
        elif (there := _header(path)) != columns:
            raise InputError(
                f"{path} has the columns {', '.join(there)}, and this point {', '.join(columns)}: accepted is a folder "
                "that this version began, or a new --out"
            )
        writer.writerow(values)
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())
            file.flush()
            os.fsync(file.fileno())


def _key(point: Point) -> Key:
    return point.table, tuple(point.columns().values())


def _finished(path: Path) -> list[Key]:
    """The points in a table's rows: all columns but the sample's."""
    header = _header(path)
    own = [name for name in header if name not in _SAMPLE_COLUMNS]
    return [(path.stem, tuple(row[name] for name in own)) for _, row in read_rows(path, header)]


def _header(path: Path) -> tuple[str, ...]:
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(next(csv.reader(file)))


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line without an end, which an interruption left."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)


def _check_same(folder: Path, there: Measured, now: Measured) -> None:
    """Points of two devices or kernels must not end up in one fit; the date may differ."""
    pairs = {
        "GPU": (there.gpu.name, now.gpu.name),
        "SMs": (there.gpu.sms, now.gpu.sms),
        "kernel": (there.served_kernel, now.served_kernel),
        "torch": (there.provenance.torch, now.provenance.torch),
        "captured": (there.captured, now.captured),
        "kernels": (there.provenance.kernels, now.provenance.kernels),
        "driver": (there.provenance.driver, now.provenance.driver),
    }
    for what, (before, after) in pairs.items():
        if before != after:
            raise InputError(
                f"{folder} holds points of {what} {before}, and this is {after}: accepted is a folder of the same "
                "device and software, or a new --out"
            )
