"""The policies that are taken where nobody names any. Imports nothing: the command line's help needs them."""

RIVALS = ("vllm-dp-0.32", "sglang-0.3", "dynamo", "llm-d", "llumnix", "two-pools", "least-harm-prefix")
"""What L4 is held against: what most people run, what migrates, what knows lengths, and the strongest that is known."""
SOLE = "l4"
"""By replay and gain."""
COMPARED = (*RIVALS, SOLE)
"""By compare, sweep and validate; changes are counted from the first."""
