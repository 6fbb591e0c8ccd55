"""One verb, one function: the use cases of the platform."""
