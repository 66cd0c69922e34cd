"""Modules that need the `[footage]` extra."""

import importlib
import logging
from types import ModuleType

EXTRA = "Footage is built with packages that reading needs not: pip install 'videodit[footage]' ({error})."


def import_footage(module: str) -> ModuleType:
    """Import a module that needs the extra; ValueError explains how to install it."""
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    logging.disable(logging.WARNING)  # Beam warns of clouds that are not installed
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("videodit"):
            raise
        raise ValueError(EXTRA.format(error=error)) from error
    finally:
        logging.disable(logging.NOTSET)
