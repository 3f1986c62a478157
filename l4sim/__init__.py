"""l4sim: what length-aware scheduling would do for your LLM traffic on your GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l4sim.api import Cluster as Cluster
    from l4sim.api import compare as compare
    from l4sim.api import load_profile as load_profile
    from l4sim.api import load_trace as load_trace
    from l4sim.api import plan as plan
    from l4sim.api import replay as replay
    from l4sim.api import sweep as sweep
    from l4sim.api import synthesize as synthesize
    from l4sim.recordings.start import record as record

__version__ = "0.1.0"

__all__ = ["Cluster", "compare", "load_profile", "load_trace", "plan", "record", "replay", "sweep", "synthesize"]


def __getattr__(name: str) -> Any:
    # The API is imported when a name of it is first used: `import l4sim` alone needs no numpy.
    if name not in __all__:
        raise AttributeError(f"module 'l4sim' has no attribute {name!r}")
    if name == "record":
        # In vLLM's environment, which has none of what the rest needs.
        from l4sim.recordings.start import record

        return record
    from l4sim import api

    globals().update({exported: getattr(api, exported) for exported in __all__ if exported != "record"})
    return globals()[name]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
