"""Conditioning inputs that come with the package: each module registers a function of its own name."""
