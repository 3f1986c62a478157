"""Seconds of one iteration, from a profile and a model: attention, linear layers, communication, the host's part."""
