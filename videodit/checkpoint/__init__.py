"""The directory of a run: its configuration and provenance, its checkpoints, and models restored from them."""
