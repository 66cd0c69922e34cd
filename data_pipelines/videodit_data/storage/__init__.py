"""Data sets on disk: records in shards, the manifest that describes them, embeddings of their captions."""
