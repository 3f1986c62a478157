"""Operators' seconds as tables that others measured: how a profile holds them, and what is looked up in them."""
