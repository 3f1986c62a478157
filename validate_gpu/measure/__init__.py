"""The profiler: plans points to a time budget, measures them on a device, keeps them, and fits a profile to them."""
