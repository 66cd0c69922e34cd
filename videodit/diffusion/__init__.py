"""Rectified flow: the path, its timesteps, the objective, guidance, solvers. A model is a function `velocity(x, t)`."""
