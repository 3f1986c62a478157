"""One LLM instance without a clock of its own: the `Engine` protocol, what any engine is made of, and vLLM's rules."""
