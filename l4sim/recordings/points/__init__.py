"""Points of public benchmarks, a row each: a model under so many requests at a time, and how far off l4sim is."""
