"""Adaptive layer norm with the gated residual before it: one call, `adaln`, and its implementations."""

from videodit_kernels.adaln.api import adaln as adaln
