"""What the server of a point was told beside what its row says.

From the scripts that start InferenceX's servers (SemiAnalysisAI/InferenceX @ 8eec0d4,
``benchmarks/single_node/fixed_seq_len``): prefix caching is off in all, most requests at a time are the concurrency or
more. Rows of other lengths than InferenceX's are others' runs, of which nothing is known: they have the engine's
defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

from l4sim.recordings.points.rows import Point

INFERENCEX_LENGTHS = ((1024, 1024), (1024, 8192), (8192, 1024))
"""Its prompt and output tokens."""
INFERENCEX_LEAST = 0.8
"""Requests have from so many times these tokens to all of them, each number as likely
(``--random-range-ratio 0.8``, ``utils/bench_serving/benchmark_serving.py``)."""


@dataclass(frozen=True, slots=True)
class Flags:
    """Of one server."""

    kv_dtype: str | None = None
    """None: the checkpoint's."""
    batched_tokens: int = 8192
    """Token budget of an iteration (vLLM), or of a chunk of prompts (SGLang): the default of both on these GPUs."""
    batched_prompts: int = 0
    """If above 0, so many prompts' tokens in place of ``batched_tokens``."""
    looks_rarely_from: int = 0
    """Concurrency from which SGLang looks at new requests every 30 iterations of decoding, below every 10; 0: all."""
    memory: float | None = None
    """Share of the GPU's memory; None: the engine's default."""
    ignores_attention_dp: bool = False
    """Whether the script starts tensor-parallel attention whatever it is asked for."""

    def recv_interval(self, concurrency: int) -> int:
        """Iterations of decoding from one look at new requests to the next (``--scheduler-recv-interval``)."""
        if not self.looks_rarely_from:
            return 1
        return 30 if concurrency >= self.looks_rarely_from else 10

    def tokens(self, prompt_tokens: int) -> int:
        """Token budget of an iteration."""
        return self.batched_prompts * prompt_tokens or self.batched_tokens


@dataclass(frozen=True, slots=True)
class _Script:
    """Whose server it starts, by beginnings of names."""

    model: str
    engine: str
    gpus: tuple[str, ...]
    flags: Flags
    weights: tuple[str | None, ...] = ()
    """None given: any."""

    def starts(self, point: Point) -> bool:
        return (
            point.model.rsplit("/", 1)[-1].lower().startswith(self.model)
            and point.engine == self.engine
            and point.gpu.startswith(self.gpus)
            and (not self.weights or point.weights in self.weights)
        )


_BLACKWELL, _HOPPER = ("b200", "b300", "gb200", "gb300"), ("h100", "h200")
_EIGHT_BITS = ("fp8", "fp8_block")

# The first that fits.
_SCRIPTS = (
    _Script("minimax", "vllm", _BLACKWELL, Flags("fp8", batched_prompts=2, ignores_attention_dp=True), _EIGHT_BITS),
    _Script("minimax", "vllm", _BLACKWELL, Flags("fp8", batched_prompts=2), ("nvfp4",)),
    _Script("minimax", "vllm", ("h200",), Flags(memory=0.95, ignores_attention_dp=True)),
    _Script("minimax", "vllm", _HOPPER, Flags(ignores_attention_dp=True)),
    _Script("kimi", "vllm", _BLACKWELL, Flags("fp8", batched_prompts=2)),
    _Script("kimi", "vllm", ("h200",), Flags(memory=0.95)),
    _Script("gpt-oss", "vllm", _BLACKWELL, Flags("fp8")),
    _Script("deepseek-r1", "sglang", _BLACKWELL, Flags("fp8", 32768, looks_rarely_from=16, memory=0.82), _EIGHT_BITS),
    _Script("deepseek-r1", "sglang", _BLACKWELL, Flags("fp8", 16384, looks_rarely_from=16, memory=0.85), ("nvfp4",)),
    _Script("qwen3.5", "sglang", _BLACKWELL, Flags(None, 32768, looks_rarely_from=16, memory=0.82), (None,)),
    _Script("qwen3.5", "sglang", _BLACKWELL, Flags("fp8", 16384, looks_rarely_from=5, memory=0.8), _EIGHT_BITS),
    _Script("qwen3.5", "sglang", _BLACKWELL, Flags("fp8", 32768, looks_rarely_from=16, memory=0.8), ("nvfp4",)),
    _Script("qwen3.5", "sglang", ("h200",), Flags("fp8", 16384, memory=0.8)),
    _Script("glm-5", "sglang", _BLACKWELL, Flags("fp8", 32768, memory=0.85)),
    _Script("glm-5", "sglang", ("h200",), Flags(memory=0.85)),
)


def is_inferencex(point: Point) -> bool:
    """Whether a point's lengths are InferenceX's."""
    return (point.prompt_tokens, point.output_tokens) in INFERENCEX_LENGTHS


def flags_of(point: Point) -> Flags:
    """What a point's server was told, or the engines' defaults."""
    if not is_inferencex(point):
        return Flags()
    return next((script.flags for script in _SCRIPTS if script.starts(point)), Flags())
