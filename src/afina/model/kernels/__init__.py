"""Kernels of our own for processors with bf16 products, in C, compiled where they run."""
