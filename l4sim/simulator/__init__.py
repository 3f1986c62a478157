"""Instances, router, agents, messages and migrations in simulated time."""

from l4sim.simulator.cluster import (
    Drain,
    Fail,
    FleetEvent,
    InstanceSpec,
    Join,
    Rules,
    SimulationResult,
    simulate,
    simulate_fleet,
)

__all__ = [
    "Drain",
    "Fail",
    "FleetEvent",
    "InstanceSpec",
    "Join",
    "Rules",
    "SimulationResult",
    "simulate",
    "simulate_fleet",
]
