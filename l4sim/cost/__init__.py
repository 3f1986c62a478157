"""Seconds: attention, linear layers, communication, one iteration; the profiles they come from."""
