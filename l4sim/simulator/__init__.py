"""Instances, router, agents, messages and migrations in simulated time."""

from l4sim.simulator.cluster import Rules, SimulationResult, simulate

__all__ = ["Rules", "SimulationResult", "simulate"]
