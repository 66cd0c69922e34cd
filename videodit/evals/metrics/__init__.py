"""The metrics of `videodit eval`: each module registers one in `videodit.evals.evaluator.EVALUATORS`."""
