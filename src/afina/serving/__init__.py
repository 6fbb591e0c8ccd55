"""The engine: answers for base and tuned models, many adapters in one batch."""
