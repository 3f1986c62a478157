"""Errors of points in groups: mean absolute percentage errors, by what was served, where, and how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from l4sim.recordings.points.predict import Predicted
from l4sim.recordings.points.rows import RefusedRow

FEW = 8
"""Up to so many at a time nothing queues, and TTFT is a prompt's seconds."""

GROUPINGS: Mapping[str, Callable[[Predicted], str]] = {
    "kind": lambda each: each.kind,
    "concurrency": lambda each: f"<= {FEW}" if each.point.concurrency <= FEW else f"> {FEW}",
    "model": lambda each: each.point.model,
    "gpu": lambda each: each.point.gpu,
    "weights": lambda each: each.point.weights or "not told",
    "engine": lambda each: each.point.engine,
}
"""What points are grouped by, and how a point's group is called."""


class Group(NamedTuple):
    """Some of the points."""

    by: str
    name: str
    points: int
    tpot_mape_pct: float
    ttft_mape_pct: float
    tpot_bias_pct: float
    """Mean error with its sign."""
    ttft_bias_pct: float


@dataclass(frozen=True, slots=True)
class Points:
    """All points of a table, predicted or refused."""

    predicted: tuple[Predicted, ...]
    refused: tuple[RefusedRow, ...]

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return sum(len(each.point.lines) for each in self.predicted) + len(self.refused)

    @property
    def whole(self) -> Group | None:
        """All that were predicted; None if none was."""
        return _group("all", "all", self.predicted) if self.predicted else None

    @property
    def groups(self) -> tuple[Group, ...]:
        """Groups by each of `GROUPINGS`, in order of their names."""
        found = []
        for by, name_of in GROUPINGS.items():
            names = sorted({name_of(each) for each in self.predicted})
            found += [_group(by, name, [each for each in self.predicted if name_of(each) == name]) for name in names]
        return tuple(found)

    def worst(self, count: int) -> list[Predicted]:
        """The points whose TPOT is farthest off."""
        return sorted(self.predicted, key=lambda each: -abs(each.tpot_error_pct))[:count]

    @property
    def reasons(self) -> Counter[str]:
        """How many rows were refused, by reason."""
        return Counter(each.reason for each in self.refused)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        whole = self.whole
        return {
            "rows": self.rows,
            "points": [_point_json(each) for each in self.predicted],
            "refused": [each._asdict() for each in self.refused],
            "tpot_mape_pct": None if whole is None else whole.tpot_mape_pct,
            "ttft_mape_pct": None if whole is None else whole.ttft_mape_pct,
            "groups": [group._asdict() for group in self.groups],
        }


def _group(by: str, name: str, points: Sequence[Predicted]) -> Group:
    tpot, ttft = (np.array([getattr(each, error) for each in points]) for error in ("tpot_error_pct", "ttft_error_pct"))
    return Group(
        by,
        name,
        len(points),
        float(np.abs(tpot).mean()),
        float(np.abs(ttft).mean()),
        float(tpot.mean()),
        float(ttft.mean()),
    )


def _point_json(each: Predicted) -> dict[str, Any]:
    point = each.point
    return {
        "lines": list(point.lines),
        "model": point.model,
        "kind": each.kind,
        "gpu": point.gpu,
        "gpus": each.gpus,
        "engine": point.engine,
        "version": point.version,
        "weights": point.weights,
        "parallelism": point.ranks._asdict(),
        "prompt_tokens": point.prompt_tokens,
        "output_tokens": point.output_tokens,
        "concurrency": point.concurrency,
        "ttft_s": {"measured": point.ttft_s, "predicted": each.ttft_s, "error_pct": each.ttft_error_pct},
        "tpot_s": {"measured": point.tpot_s, "predicted": each.tpot_s, "error_pct": each.tpot_error_pct},
        "basis": each.basis,
    }
