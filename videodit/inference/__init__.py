"""Trained and imported models at work: loaded, sampled from, and encoding data sets."""
