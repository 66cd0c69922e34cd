"""Keys of configurations that have other names now: old runs are read with the new ones, commands name them."""

import copy
from collections.abc import Mapping
from typing import Any

RENAMED_KEYS: dict[str, str] = {
    "spread": "latent_scale",
    "posterior": "latent_sampling",
    "expert": "low_noise_expert",
    "image_first": "first_frame",
    "timesteps": "objective.timesteps",
    "sampler.thousandths": "sampler.quantize_timesteps",
    "sampler.boundary": "sampler.expert_boundary",
    "sampler.guidance_below": "sampler.low_noise_guidance",
    "data.buckets.sides": "data.buckets.resolutions",
    "data.buckets.upsample": "data.buckets.max_upscale",
}
"""Dotted path of a key, or of a JSON object, before to now."""

RENAMED_VALUES: dict[tuple[str, Any], Any] = {("latent_sampling", "draw"): "sample"}
"""Key now and its value before, to its value now."""


def migrate(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree of a configuration with the names of now; one that has them comes back as it is."""
    migrated = copy.deepcopy(dict(tree))
    for before, now in RENAMED_KEYS.items():
        *groups, old = before.split(".")
        source = _group(migrated, groups)
        if source is not None and old in source:
            *groups, new = now.split(".")
            target = _group(migrated, groups, create=True)
            if target is None:
                raise ValueError(f"key '{before}' is called '{now}' now, but '{'.'.join(groups)}' is no JSON object")
            target[new] = source.pop(old)
    for (key, before), now in RENAMED_VALUES.items():
        if migrated.get(key) == before:
            migrated[key] = now
    return migrated


def new_name(path: str) -> str | None:
    """Return the present name of a key by its path before; None for a path that was never renamed."""
    for before, now in RENAMED_KEYS.items():
        if path == before or path.startswith(f"{before}."):
            return now + path.removeprefix(before)
    return None


def _group(tree: dict[str, Any], path: list[str], *, create: bool = False) -> dict[str, Any] | None:
    for name in path:
        if create:
            tree.setdefault(name, {})
        if not isinstance(tree.get(name), dict):
            return None
        tree = tree[name]
    return tree
