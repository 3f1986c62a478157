"""What must hold of an engine whenever something has changed; each is told by its number in `docs/invariants.md`."""

from __future__ import annotations

from l4sim.engine.protocol import Engine


def check_engine(instance: int, engine: Engine) -> None:
    """Check an engine's own invariants (E1, ...). Raises AssertionError, naming the instance and what does not hold."""
    violations = engine.violations()
    if violations:
        raise AssertionError(f"instance {instance}: {'; '.join(violations)}")
