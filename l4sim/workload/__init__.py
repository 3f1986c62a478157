"""Traces: read from public formats, generated, described, written."""
