"""Captions written by a vision model, and prompts expanded by the same instruction. Needs no extra."""
