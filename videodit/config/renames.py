"""Keys of configurations that have other names now: old runs are read with the new ones, commands name them."""

import copy
from collections.abc import Mapping
from typing import Any

RENAMED_KEYS: dict[str, str] = {
    "spread": "latent_scale",
    "posterior": "latent_sampling",
    "expert": "low_noise_expert",
    "image_first": "first_frame",
    "sampler.thousandths": "sampler.quantize_timesteps",
    "sampler.boundary": "sampler.expert_boundary",
    "sampler.guidance_below": "sampler.low_noise_guidance",
    "data.buckets.sides": "data.buckets.resolutions",
    "data.buckets.upsample": "data.buckets.max_upscale",
}
"""Dotted path before to dotted path now, in the same group."""

RENAMED_VALUES: dict[tuple[str, Any], Any] = {("latent_sampling", "draw"): "sample"}
"""Key now and its value before, to its value now."""


def migrate(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree of a configuration with the names of now; a key that has them stays as it is."""
    migrated = copy.deepcopy(dict(tree))
    for before, now in RENAMED_KEYS.items():
        *groups, old = before.split(".")
        group: Any = migrated
        for name in groups:
            group = group.get(name, {}) if isinstance(group, dict) else {}
        if isinstance(group, dict) and old in group:
            group[now.rpartition(".")[2]] = group.pop(old)
    for (key, before), now in RENAMED_VALUES.items():
        if migrated.get(key) == before:
            migrated[key] = now
    return migrated


def new_name(path: str) -> str | None:
    """Return the present name of a key by its path before; None for a path that was never renamed."""
    return RENAMED_KEYS.get(path)
