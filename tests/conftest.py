"""Eight fake CPU devices, programs compiled with few optimizations, and runtime checks of every annotated shape."""

import atexit
import importlib.metadata
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

os.environ["JAX_PLATFORMS"] = "cpu"
# Most programs of the tests run once, so that compiling is most of their time.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later versions refuse the flag
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"  # halves the time of compiling
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers, and the processes of tests, share compiled programs
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="videodit-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import pytest
from jaxtyping import install_import_hook

install_import_hook(["videodit", "videodit_data", "videodit_kernels"], "beartype.beartype")


@pytest.fixture
def file_limit() -> Callable[[int], AbstractContextManager[None]]:
    """Return a context manager in which no file can grow beyond a number of bytes, as on a full disk."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)

    return limit


@pytest.fixture
def tpu_compiler() -> dict[str, str]:
    """Return the environment of a process in which libtpu compiles for a target topology, of one kind of chip.

    libtpu is installed outside site-packages: inside it, JAX would look for a TPU at every start.
    """
    from videodit.plan.topology import Topology

    try:
        environment = Topology.parse("v5e:1x1").environment()
    except ValueError as error:
        pytest.skip(f"{error}; `make test` puts it into .venv/libtpu on Linux x86_64")
    return environment | {"PYTHONPATH": os.pathsep.join([environment["PYTHONPATH"], *filter(None, sys.path)])}


from tests.interop.reference import golden  # noqa: E402, F401
