"""Where a file comes from: the provenance that every run, sample and score carries."""

import hashlib
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_KEYS = (
    re.compile(r"(?P<before>://)[^/@\s]+(?=@)"),
    re.compile(
        r"(?i)(?P<before>(?:[?&;#]|^--?)[\w.-]*(?:key|token|secret|password|signature|\bsig|credential|auth|\bcode)=)"
        r"[^&;#\s]+"
    ),
)
_KEY_VARIABLE = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")
_LEAST_KEY = 8  # characters of a variable's value that is taken for a key

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


def command_line() -> list[str]:
    """Return the command that runs, with keys replaced: those of addresses, and values of variables named so."""
    secrets = {
        value
        for name, value in os.environ.items()
        if _KEY_VARIABLE.search(name) and len(value) >= _LEAST_KEY and not value.startswith("/")
    }
    return [_without_keys(argument, secrets) for argument in sys.argv]


def _without_keys(argument: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        argument = argument.replace(secret, "[key]")
    for pattern in _KEYS:
        argument = pattern.sub(r"\g<before>[key]", argument)
    return argument


def fingerprint(text: str) -> str:
    """Return a short hash of a configuration's JSON, to tell runs apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def provenance(config_json: str, **facts: Any) -> dict[str, Any]:
    """Return the versions and the configuration's fingerprint beside `facts`."""
    return {"config": fingerprint(config_json), "versions": versions()} | facts
