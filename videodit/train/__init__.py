"""Training: configuration, state, one pure step, one loop."""
