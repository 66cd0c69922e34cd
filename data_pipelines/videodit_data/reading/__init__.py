"""Batches of captioned clips: which clips, in which shapes and order, and the arrays made of them."""
