"""A real engine's run, recorded and decided once more."""
