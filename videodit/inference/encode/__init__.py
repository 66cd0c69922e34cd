"""Encoding of data sets: clips to latents and captions to embeddings, by processes that share the shards."""
