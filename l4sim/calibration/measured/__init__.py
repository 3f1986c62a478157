"""Profiles from what ``l4sim profile measure`` wrote."""
