"""l4sim: what length-aware scheduling would do for your LLM traffic on your GPUs."""

__version__ = "0.1.0"
