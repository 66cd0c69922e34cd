"""Every configuration, traced as the trainer would compile it, without allocating its weights."""

import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from videodit.config.io import from_config_dict, load
from videodit.config.run import DiTRun, VAERun
from videodit.models.vae import VAEConfig
from videodit.parallel.mesh import make_mesh
from videodit.plan.program import build_train_program

CONFIGS = Path(__file__).parents[1] / "configs"
PLANS = CONFIGS.parent / "docs" / "plan.md"
VARIANTS = {
    "quickstart": ["vae", "dit"],
    "footage": ["vae", "dit"],
    "vae": [""],
    "wan": ["1.3b", "14b", "1.3b_tune", "14b_tune", "1.3b_lora", "14b_lora"],
    "dit": ["toy", "S", "B", "L", "XL", "1.3b", "14b"],
}
NAMES = [f"{file}:{v}".rstrip(":") for file, vs in VARIANTS.items() for v in vs]


def test_no_configuration_is_forgotten():
    assert {path.stem for path in CONFIGS.glob("*.py")} == set(VARIANTS)


def test_each_has_a_machine_that_it_fits_in_the_docs():
    rows = dict(re.findall(r"^\| `(.+?)` (.*)", PLANS.read_text(), re.M))
    assert {name.replace(".py", "") for name in rows if ".py" in name} == set(NAMES)
    assert not any("does not fit" in row for row in rows.values())


@pytest.mark.parametrize("name", NAMES)
def test_traces_abstractly(name):
    file, _, variant = name.partition(":")
    run = load(f"{CONFIGS / file}.py" + (f":{variant}" if variant else ""))
    program = build_train_program(run, make_mesh(run.mesh, jax.devices()[:4], heads=run.heads), vae_of(run))
    state = program.arguments[0]
    new, metrics = jax.eval_shape(program.fn, *program.arguments)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert metrics["loss"].shape == ()
    if variant in ("14b", "14b_tune"):
        assert sum(np.prod(p.shape, dtype=np.int64) for p in jax.tree.leaves(state.params)) > 14e9


@pytest.mark.parametrize("file", sorted(VARIANTS))
def test_header_says_how_to_run_it_and_what_to_expect(file):
    header = (CONFIGS / f"{file}.py").read_text().split('"""')[1]
    for word in ("Command:", "Hardware:", "Result:"):
        assert word in header


@pytest.mark.parametrize("file", [name for name, variants in VARIANTS.items() if variants != [""]])
def test_an_unknown_variant_names_those_there_are(file):
    spec = importlib.util.spec_from_file_location(file, CONFIGS / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from_config_dict(module.get_config())
    with pytest.raises(ValueError, match=f"has the variants {VARIANTS[file][0]}"):
        module.get_config("nothing")


def vae_of(run: VAERun | DiTRun) -> VAEConfig | None:
    """Return the autoencoder that a transformer's configuration names, if it is a variant of a configuration."""
    sources = [name for name in ("quickstart", "footage") if isinstance(run, DiTRun) and name in run.vae]
    return load(f"{CONFIGS / sources[0]}.py:vae").model if sources else None
