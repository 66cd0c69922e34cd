"""Scores of generated clips, and the report that shows them."""
