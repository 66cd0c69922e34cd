"""Training: tasks, state, one pure step, one loop."""
