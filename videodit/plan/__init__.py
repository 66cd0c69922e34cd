"""The planner: the trainer's own programs, compiled for devices of a topology, with none of them at hand."""
