"""Where a file comes from: the provenance that every run, sample and score carries."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

JSON = str | int | float | bool | None | Sequence | Mapping
"""A JSON value; sequences and mappings hold JSON values, and the keys of mappings are strings."""

PACKAGES = ("videodit", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "av")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a source tree on PYTHONPATH
        return "not installed"


def fingerprint(text: str) -> str:
    """Return a short hash of a configuration's JSON, to tell runs apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def provenance(config_json: str, **facts: Any) -> dict[str, Any]:
    """Return the versions and the configuration's fingerprint beside `facts`."""
    return {"config": fingerprint(config_json), "versions": versions()} | facts
