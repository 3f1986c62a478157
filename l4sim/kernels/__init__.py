"""How attention kernels split a batch over a GPU: pure functions, no timings."""
