"""Measure a device, run the same policies on live instances of it, and compare with the simulator."""
