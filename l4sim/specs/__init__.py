"""What is fixed before a run: GPUs, models, links, clusters."""
