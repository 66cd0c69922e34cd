"""Data sets coded once: clips as latents, captions as embeddings, by processes that share out the shards."""
