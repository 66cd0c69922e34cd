"""The tasks: each module registers one in `videodit.train.task.TASKS`."""
