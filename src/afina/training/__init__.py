"""The trainer: reads a run directory, answers only with files."""
