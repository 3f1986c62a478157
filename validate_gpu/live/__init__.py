"""A live engine: the simulator's own instance and policies, with a forward pass in place of the cost model."""
