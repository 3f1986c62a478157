"""From a setup's options to the rules of the simulated world."""

from __future__ import annotations

from l4sim.experiment.resolving import resolve
from l4sim.experiment.running import rules_of
from l4sim.runtime.migration.methods import MigrationRules
from l4sim.simulator.cluster import Rules
from l4sim.simulator.transport import Network
from l4sim.specs.options import Options


def test_options_left_alone_are_the_rules_own_defaults() -> None:
    assert rules_of(resolve(Options())) == Rules()


def test_every_rule_is_reached_by_its_option() -> None:
    options = Options(
        message_latency_s=0.1,
        message_jitter_s=0.2,
        message_loss=0.3,
        message_duplication=0.4,
        seed=5,
        max_concurrent_migrations=6,
        migration_last_stage_blocks=7,
        migration_max_stages=8,
        migration_slowdown=0.9,
        failure_detection_s=11,
        fast_forward=False,
    )
    assert rules_of(resolve(options)) == Rules(
        fast_forward=False,
        network=Network(latency_s=0.1, jitter_s=0.2, loss=0.3, duplication=0.4, seed=5),
        failure_detection_s=11,
        migration=MigrationRules(max_concurrent=6, last_stage_blocks=7, max_stages=8, slowdown=0.9),
    )
