"""Decisions only: routers, and one agent per instance."""
