"""Many simulations: grids, capacity searches, on one machine or many."""
