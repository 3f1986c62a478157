"""vLLM V1's scheduling rules and prefix cache."""
