"""What is worth measuring on a device: sizes of every operator, densest where a planner's choice changes."""

from __future__ import annotations

from dataclasses import dataclass

Size = int


@dataclass(frozen=True, slots=True)
class Grid:
    """Sizes to choose from; what a model or the memory for keys and values cannot hold is left out later."""

    requests: tuple[Size, ...]
    """Decoding requests of a batch."""
    total_tokens: tuple[Size, ...]
    """Context tokens of a whole decode batch, shared out by every pattern."""
    prompts: tuple[Size, ...]
    """Prompt tokens of one chunk."""
    cached: tuple[Size, ...]
    """Tokens before a chunk."""
    mixed: tuple[tuple[int, int, int, int], ...]
    """(decoding requests, their contexts, chunk, cached) in one batch."""
    product_rows: tuple[Size, ...]
    product_sides: tuple[Size, ...]
    """Sides of products beside the model's own."""
    tokens: tuple[Size, ...]
    """Tokens of element-wise operators and layers."""
    sequences: tuple[Size, ...]
    iterations: tuple[tuple[tuple[int, ...], tuple[tuple[int, int], ...]], ...]
    """(contexts, chunks) of whole iterations."""
    iteration_passes: int
    """How often each of them is measured: the fits are held to them, and a device may have a bad moment."""
    copied_tokens: tuple[Size, ...]
    summed_bytes: tuple[Size, ...]


def _powers(first: int, last: int) -> tuple[int, ...]:
    return tuple(first << shift for shift in range((last // first).bit_length()))


# Around 33 requests on tensor cores and 132 on CUDA cores, where 8 KV heads on 132 SMs stop being split.
_H200_REQUESTS = (
    *(1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 30, 31, 32, 33, 34, 35, 36, 40, 48, 56, 64, 66, 80, 96, 112, 120, 128),
    *(130, 131, 132, 133, 134, 136, 144, 160, 192, 224, 256, 264, 320, 384, 448, 512),
)

GPU_GRID = Grid(
    requests=_H200_REQUESTS,
    total_tokens=(4096, 16384, 32768, 65536, 131072, 262144, 524288, 1048576),
    prompts=(16, 64, *_powers(128, 16384), 384, 768, 1536, 3072, 6144),
    cached=(0, 512, 2048, 8192, 16384, 32768, 65536, 98304, 122880),
    mixed=tuple(
        (requests, context, chunk, cached)
        for requests in (8, 32, 128)
        for context in (512, 2048, 8192)
        for chunk, cached in ((256, 0), (1024, 0), (2048, 8192))
    ),
    product_rows=(*_powers(1, 8192), 24, 48, 96, 192, 384, 768, 1536),
    product_sides=(1024, 2048, 3072, 5120, 8192, 14336),
    tokens=(*_powers(1, 8192), 24, 48, 96, 192, 384, 768, 1536, 3072, 6144),
    sequences=(*_powers(1, 512), 24, 48, 96, 192, 384),
    iterations=(
        *(((context,) * requests, ()) for requests in (1, 4, 8, 16, 32, 64) for context in (256, 2048)),
        *(((256,) * 15 + (16384,), ()), ((256,) * 31 + (16384,), ())),
        # The smallest are bound by the host, which launches every kernel of a step that is not captured.
        *(((), ((chunk, 0),)) for chunk in (16, 64, 256, 512, 1024, 2048, 4096)),
        *(((1024,) * requests, ((chunk, 0),)) for requests in (2, 8, 32) for chunk in (16, 128, 512, 2048)),
    ),
    iteration_passes=1,
    copied_tokens=(16, 128, 512, 2048, 8192, 32768),
    summed_bytes=_powers(4096, 1 << 28),
)

CPU_GRID = Grid(
    requests=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64),
    total_tokens=(256, 1024, 2048, 4096, 8192, 16384, 32768),
    prompts=(16, 32, 64, 128, 256, 512, 1024, 2048),
    cached=(0, 64, 256, 1024, 4096),
    mixed=tuple(
        (requests, context, chunk, cached)
        for requests in (4, 8, 16)
        for context in (64, 512)
        for chunk, cached in ((64, 0), (128, 256), (512, 1024))
    ),
    product_rows=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048),
    product_sides=(256, 512, 1024),
    # Odd, as most prompts are: products of whole tiles are some 5 % faster on a CPU.
    tokens=(1, 2, 4, 8, 13, 19, 27, 37, 51, 73, 101, 147, 211, 307, 511, 1023, 2048),
    sequences=(1, 2, 4, 8, 16, 32, 64),
    iterations=(
        *(((context,) * requests, ()) for requests in (1, 2, 4, 8, 16, 32) for context in (64, 256, 1024)),
        *(((64,) * 7 + (2048,), ()), ((64,) * 15 + (2048,), ())),
        *(((), ((chunk, 0),)) for chunk in (27, 51, 101, 211, 511, 1023)),
        *(((256,) * requests, ((chunk, 0),)) for requests in (2, 8) for chunk in (51, 211)),
    ),
    iteration_passes=3,
    copied_tokens=(16, 64, 256, 1024),
    summed_bytes=(),
)
