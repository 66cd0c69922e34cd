"""Renamed configuration keys: old runs are read, and an error for an old name contains the new one."""

import json

import pytest

from tests.cli.tiny import get_config
from videodit.config.files import from_config_dict as build
from videodit.config.io import RUNS, from_config_dict, from_json, load, to_json
from videodit.config.renames import RENAMED_KEYS, migrate, new_name
from videodit.config.schema import to_tree

BEFORE = {
    "posterior": "draw",
    "expert": "expert",
    "image_first": True,
    "timesteps": {"shift": 3.0, "std": 1.5},
    "sampler": {"steps": 4, "thousandths": True, "boundary": 0.9, "guidance_below": 2.0},
}


def old_tree():
    """Return a run as an earlier version wrote it."""
    tree = json.loads(to_json(from_config_dict(get_config("dit"))))
    for name in ("latent_sampling", "low_noise_expert", "first_frame", "objective", "sampler"):
        del tree[name]
    tree["data"]["buckets"] = {"tokens": 0, "sides": [16, 32], "upsample": 2.0}
    return tree | BEFORE


def test_a_run_of_before_is_read_with_the_names_of_now():
    run = from_json(json.dumps(old_tree()))
    assert (run.latent_sampling, run.low_noise_expert, run.first_frame) == ("sample", "expert", True)
    assert (run.objective.timesteps.shift, run.objective.timesteps.std) == (3.0, 1.5)
    assert (run.sampler.quantize_timesteps, run.sampler.expert_boundary, run.sampler.low_noise_guidance) == (
        True,
        0.9,
        2,
    )
    assert (run.data.buckets.resolutions, run.data.buckets.max_upscale) == ((16, 32), 2.0)
    assert from_json(to_json(run)) == run and migrate(to_tree(run)) == to_tree(run)


@pytest.mark.parametrize("before", RENAMED_KEYS)
def test_an_old_name_is_answered_by_the_new_one(before, tmp_path):
    (tmp_path / "config.py").write_text("from tests.cli.tiny import get_config\n")
    kind = "vae" if before == "spread" else "dit"
    with pytest.raises(ValueError, match=rf"^key '{before}' is called '{RENAMED_KEYS[before]}' now$"):
        load(f"{tmp_path / 'config.py'}:{kind}", [f"--config.{before}=1"])


def test_a_key_in_a_renamed_group_has_a_new_name_too():
    assert new_name("timesteps.shift") == "objective.timesteps.shift"
    assert new_name("timestepsx") is None and new_name("objective.timesteps") is None
    config = get_config("dit")
    with config.unlocked():
        config.posterior = "mean"
    with pytest.raises(ValueError, match="key 'posterior' is called 'latent_sampling' now"):
        build(config, RUNS)
