"""A vLLM server behind the engine: the same protocol to the front, vLLM's HTTP to the back."""
