"""Fits of everything but attention, and what all fits share."""
