"""L4 against its rivals: `python -m benchmarks.rivals`."""
