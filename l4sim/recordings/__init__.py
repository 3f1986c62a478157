"""Recorded runs of real engines: read from a folder, replayed in the simulator, compared request by request."""
