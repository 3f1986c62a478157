"""Engines by the name of the rules that they follow: bundled ones, and those from outside the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from l4sim.engine.config import EngineConfig
from l4sim.errors import InputError
from l4sim.plugins import find
from l4sim.specs.engine_defaults import ENGINE_DEFAULTS, SGLANG

if TYPE_CHECKING:
    from l4sim.engine.blocks import BlockPool
    from l4sim.engine.protocol import Engine, EngineFactory


def _vllm(rules: str) -> EngineFactory:
    def make(
        config: EngineConfig,
        *,
        max_iterations: int | None = None,
        pool: BlockPool | None = None,
    ) -> Engine:
        # Imported when one is made: options must know the names alone.
        from l4sim.engine.vllm.engine import VLLMEngine
        from l4sim.engine.vllm.grouped import GroupedVLLMEngine
        from l4sim.engine.vllm.versions import VERSIONS

        if config.kv_groups:
            if pool is not None:
                raise InputError("blocks that are more than counts are of one group of layers: this model has several")
            return GroupedVLLMEngine(config, rules=VERSIONS[rules], max_iterations=max_iterations)
        return VLLMEngine(config, rules=VERSIONS[rules], max_iterations=max_iterations, pool=pool)

    return make


def _sglang(
    config: EngineConfig,
    *,
    max_iterations: int | None = None,
    pool: BlockPool | None = None,
) -> Engine:
    from l4sim.engine.sglang.engine import SGLangEngine

    return SGLangEngine(config, max_iterations=max_iterations, pool=pool)


ENGINES: Mapping[str, EngineFactory] = {**{rules: _vllm(rules) for rules in ENGINE_DEFAULTS}, SGLANG: _sglang}
"""Those that are bundled: an engine's name, and the version whose scheduler its rules were taken from."""

GROUP = "l4sim.engines"
"""Where other packages offer engines of theirs, as entry points."""


def engine_named(name: str) -> EngineFactory:
    """What makes the engines with these rules: one of `ENGINES`, another package's, or a ``module:attribute``.

    Raises:
        InputError: there is none (see `l4sim.plugins.find`), or what is found makes nothing.
    """
    found = find(GROUP, name, ENGINES)
    if not callable(found):
        raise InputError(f"engine rules '{name}' are a {type(found).__name__}: accepted is what makes an engine")
    factory: EngineFactory = found
    return factory
