"""Metrics of generated clips, and their report."""
