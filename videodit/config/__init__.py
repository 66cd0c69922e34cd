"""The configuration of a run: frozen dataclasses, their schema, files of `configs/` and overrides."""
