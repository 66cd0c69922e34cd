"""Pallas kernels for video transformers, independent of videodit."""
