"""Frozen values and pure rules of the platform; standard library only."""
