"""Rectified flow: the path, its timesteps, the objective, guidance, the solvers. A model is only `velocity(x, t)`."""
