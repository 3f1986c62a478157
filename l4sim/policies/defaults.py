"""The policies that are taken where nobody names any. Imports nothing: the command line's help needs them."""

COMPARED = ("vllm", "two-pools", "l4")
"""By compare and sweep."""
RIVALS = ("vllm", "two-pools", "llumnix", "sglang-cache-aware", "least-harm")
"""What gain holds a policy against."""
LIVE = ("round-robin", "llumnix", "l4")
"""By validate on live instances."""
SOLE = "l4"
"""By replay and gain."""
