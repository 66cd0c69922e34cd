"""Embedders of named conditioning inputs: each module registers one in `videodit.models.condition_embedder`."""
