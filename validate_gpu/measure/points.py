"""What can be measured: one frozen point per row of a table in the profile's folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

from l4sim.calibration.measured.folder import MODEL_COLUMNS
from l4sim.calibration.points.batches import chunks_text, contexts_text
from l4sim.cost.operators import OperatorSizes
from l4sim.specs.model import Model, uniform_layers

Chunk = tuple[int, int]
"""Prompt tokens to compute, and tokens of the same request that are cached."""


@dataclass(frozen=True, slots=True)
class AttentionPoint:
    """One layer's attention of a batch."""

    table: ClassVar[str] = "attention"
    model: Model
    kernel: str
    planned: str
    """``graph`` or ``eager``: whether the kernel plans its split for CUDA graphs."""
    pattern: str
    contexts: tuple[int, ...]
    """Of the decoding requests, this step's token included."""
    chunks: tuple[Chunk, ...] = ()

    @property
    def operator(self) -> str:
        """What fails together: once points of an operator have failed often, the others are left out."""
        return self.kernel

    def columns(self) -> dict[str, str]:
        """The point's columns in its table, by name."""
        return {
            "kernel": self.kernel,
            "planned": self.planned,
            "pattern": self.pattern,
            **{name: str(size) for name, size in uniform_layers(self.model).attention.sizes.items()},
            "context_tokens": contexts_text(self.contexts),
            "chunks": chunks_text(self.chunks),
        }


@dataclass(frozen=True, slots=True)
class ProductPoint:
    """A linear layer: ``[m, k] x [k, n]``."""

    table: ClassVar[str] = "linear"
    operator: ClassVar[str] = "linear"
    m: int
    n: int
    k: int

    def columns(self) -> dict[str, str]:
        """The point's columns in its table, by name."""
        return {"m": str(self.m), "n": str(self.n), "k": str(self.k)}


@dataclass(frozen=True, slots=True)
class ElementwisePoint:
    """An operator that only moves data, on ``tokens`` rows of ``width`` elements."""

    table: ClassVar[str] = "elementwise"
    operation: str
    """``rms-norm``, ``silu`` or ``copy``."""
    tokens: int
    width: int
    size_bytes: int
    """Read and written."""

    @property
    def operator(self) -> str:
        """What fails together: once points of an operator have failed often, the others are left out."""
        return self.operation

    def columns(self) -> dict[str, str]:
        """The point's columns in its table, by name."""
        return {
            "operation": self.operation,
            "tokens": str(self.tokens),
            "width": str(self.width),
            "size_bytes": str(self.size_bytes),
        }


@dataclass(frozen=True, slots=True)
class LayersPoint:
    """A pass of the live engine's model through a few layers, or none, without attention; one token is sampled."""

    table: ClassVar[str] = "layers"
    operator: ClassVar[str] = "layers"
    model: Model
    tokens: int
    layers: int

    def columns(self) -> dict[str, str]:
        """The point's columns in its table, by name."""
        return {**model_columns(self.model), "tokens": str(self.tokens), "layers": str(self.layers)}


@dataclass(frozen=True, slots=True)
class SampledPoint:
    """The head's product and the choice of the likeliest token, for ``sequences`` rows."""

    table: ClassVar[str] = "sampled"
    operator: ClassVar[str] = "sampled"
    model: Model
    sequences: int

    def columns(self) -> dict[str, str]:
        """The point's columns in its table, by name."""
        return {**model_columns(self.model), "sequences": str(self.sequences)}


@dataclass(frozen=True, slots=True)
class IterationPoint:
    """A whole iteration of the live engine, from its inputs to the sampled tokens on the host."""

    table: ClassVar[str] = "iterations"
    operator: ClassVar[str] = "iterations"
    model: Model
    contexts: tuple[int, ...]
    chunks: tuple[Chunk, ...] = ()

    def columns(self) -> dict[str, str]:
        """The point's columns in its table, by name."""
        return {
            **model_columns(self.model),
            "layers": str(self.model.layers),
            "context_tokens": contexts_text(self.contexts),
            "chunks": chunks_text(self.chunks),
        }


@dataclass(frozen=True, slots=True)
class KvCopyPoint:
    """A migration's copy of ``tokens`` tokens of all layers, from pages to pages."""

    table: ClassVar[str] = "kv_copy"
    model: Model
    tokens: int
    route: str
    """``same-device`` or ``peer``."""

    @property
    def operator(self) -> str:
        """What fails together: once points of an operator have failed often, the others are left out."""
        return f"kv_copy {self.route}"

    def columns(self) -> dict[str, str]:
        """The point's columns in its table, by name."""
        size_bytes = self.tokens * self.model.kv_bytes_per_token
        return {
            **model_columns(self.model),
            "layers": str(self.model.layers),
            "tokens": str(self.tokens),
            "route": self.route,
            "size_bytes": str(size_bytes),
        }


@dataclass(frozen=True, slots=True)
class AllReducePoint:
    """A sum over ``gpus`` GPUs of one node."""

    table: ClassVar[str] = "all_reduce"
    operator: ClassVar[str] = "all_reduce"
    gpus: int
    size_bytes: int

    def columns(self) -> dict[str, str]:
        """The point's columns in its table, by name."""
        return {"gpus": str(self.gpus), "size_bytes": str(self.size_bytes)}


Point = (
    AttentionPoint
    | ProductPoint
    | ElementwisePoint
    | LayersPoint
    | SampledPoint
    | IterationPoint
    | KvCopyPoint
    | AllReducePoint
)


@dataclass(frozen=True, slots=True)
class Sample:
    """The result of measuring one point."""

    median_s: float
    spread_s: float
    """Seconds between the quartiles of the repeats."""
    repeats: int
    timed: str
    """``graph``: replays of a CUDA graph; ``stream``: launches behind one another; ``host``: from call to result;
    ``served``: likewise, within an engine that serves."""
    reference_error: float
    """Largest difference from a float32 reference, relative to the root mean square of its row."""
    slowness: float | None = None
    """How many times slower than the reference speed the device was (median); each repeat is divided by its own."""

    def columns(self) -> dict[str, str]:
        """As texts, in the order of the table's last columns."""
        slowness = {} if self.slowness is None else {"slowness": f"{self.slowness:.4g}"}
        return {
            "median_s": f"{self.median_s:.6g}",
            "spread_s": f"{self.spread_s:.3g}",
            "repeats": str(self.repeats),
            "timed": self.timed,
            "reference_error": f"{self.reference_error:.3g}",
            **slowness,
        }


def model_columns(model: Model) -> dict[str, str]:
    """A model's shape, by ``MODEL_COLUMNS``."""
    sizes = asdict(OperatorSizes.of(model, uniform_layers(model)))
    return {"model": model.name} | {name: str(size) for name, size in sizes.items()}


def describe(point: Point) -> str:
    """One line for progress and failures."""
    own = {name: text for name, text in point.columns().items() if text and name not in MODEL_COLUMNS}
    texts = (f"{name}={text if len(text) <= 40 else text[:37] + '...'}" for name, text in own.items())
    return f"{point.table}: {', '.join(texts)}"
