"""One LLM instance without a clock of its own: queues, batching, KV blocks, prefix cache."""
