"""The rules of the check: one small function each, listed in `registry`."""
