"""Eight fake CPU devices, programs compiled in haste, and every annotated shape checked as the tests run."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Most programs of the tests run once, so that compiling is most of their time.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

from jaxtyping import install_import_hook

install_import_hook(["videodit", "videodit_data", "videodit_kernels"], "beartype.beartype")
