"""The planner: the trainer's own programs, compiled for devices that are not here, and what they cost there."""
