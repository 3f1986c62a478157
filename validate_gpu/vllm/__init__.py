"""What runs inside vLLM's own processes: a scheduler that records what it decides.

Nothing here needs l4sim's dependencies: vLLM's environment has all that is imported.
"""
