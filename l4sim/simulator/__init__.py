"""Instances, router, agents, messages and migrations in simulated time."""

from l4sim.simulator.cluster import Rules, simulate
from l4sim.simulator.rows import SimulationResult

__all__ = ["Rules", "SimulationResult", "simulate"]
