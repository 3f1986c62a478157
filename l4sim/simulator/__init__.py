"""Instances, router, agents, messages and migrations in simulated time."""

from l4sim.simulator.cluster import (
    FleetEvent,
    InstanceSpec,
    Join,
    Rules,
    SimulationResult,
    simulate,
    simulate_fleet,
)

__all__ = [
    "FleetEvent",
    "InstanceSpec",
    "Join",
    "Rules",
    "SimulationResult",
    "simulate",
    "simulate_fleet",
]
