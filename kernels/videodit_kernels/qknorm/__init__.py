"""RMS norm of queries or keys and their rotary embedding: one call, `norm_rotate`, and its implementations."""

from videodit_kernels.qknorm.api import norm_rotate as norm_rotate
from videodit_kernels.qknorm.reference import rotate as rotate
