"""Eight fake CPU devices, programs compiled in haste, and every annotated shape checked as the tests run."""

import importlib.util
import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# Most programs of the tests run once, so that compiling is most of their time.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import pytest
from jaxtyping import install_import_hook

install_import_hook(["videodit", "videodit_data", "videodit_kernels"], "beartype.beartype")


@pytest.fixture
def tpu_compiler() -> dict[str, str]:
    """The environment of a process in which libtpu compiles for TPUs that are not here; it takes one kind of chip.

    libtpu lies beside the packages, not among them: where it is among them, JAX looks for a TPU whenever it starts.
    """
    aside = Path(sys.prefix, "libtpu")
    if not Path(aside, "libtpu").exists() and importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed; `make test` puts it into .venv/libtpu on Linux x86_64")
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "PYTHONPATH": os.pathsep.join([str(aside), *filter(None, sys.path)]),
    }


from tests.interop.reference import golden  # noqa: E402, F401
