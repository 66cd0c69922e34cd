"""Data formats by name, and the one function that opens a data set of any of them."""

from videodit_data.formats.registry import format_name, open_dataset, register_format

__all__ = ["format_name", "open_dataset", "register_format"]
