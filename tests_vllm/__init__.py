"""Our engines beside vLLM's own scheduler, in an environment that has vLLM (`make test-vllm`)."""
