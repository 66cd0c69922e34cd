"""Pallas kernels for video transformers; knows nothing of videodit."""
