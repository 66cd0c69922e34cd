"""Where a file comes from: what every run, sample and score carries along."""

import hashlib
import importlib.metadata
import platform
from typing import Any

PACKAGES = ("videodit", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "av")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a source tree on PYTHONPATH
        return "not installed"


def fingerprint(text: str) -> str:
    """A short hash of a configuration's JSON, to tell runs apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def provenance(config_json: str, **facts: Any) -> dict[str, Any]:
    """The versions and the configuration's fingerprint beside `facts`."""
    return {"config": fingerprint(config_json), "versions": versions()} | facts
