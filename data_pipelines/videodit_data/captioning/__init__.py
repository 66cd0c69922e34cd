"""Captions written by a model that looks at frames, and prompts expanded in the same words. Needs no extra."""
