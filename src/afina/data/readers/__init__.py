"""Readers: one module a file format, each gives records with their line numbers."""
