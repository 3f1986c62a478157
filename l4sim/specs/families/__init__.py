"""Families of models: how each tells its layers in ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping

from l4sim.specs.families import dense, experts, hybrid, latent
from l4sim.specs.families.family import Family

FAMILIES: Mapping[str, Family] = {
    name: family
    for module in (dense, experts, latent, hybrid)
    for family in module.FAMILIES
    for name in family.model_types
}
"""By ``model_type``."""
