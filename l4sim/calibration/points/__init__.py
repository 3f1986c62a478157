"""Measured points as columns and batches, and the tables that they are read from."""
