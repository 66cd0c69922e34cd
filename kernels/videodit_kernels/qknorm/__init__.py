"""RMS norm of queries or keys and their rotary embedding: one call, `norm_rope`, and its implementations."""

from videodit_kernels.qknorm.api import norm_rope as norm_rope
from videodit_kernels.qknorm.reference import apply_rope as apply_rope
