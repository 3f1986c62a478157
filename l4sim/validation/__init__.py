"""A real engine's run, request by request, against the simulator's of the same requests."""
