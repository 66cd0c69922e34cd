"""Every configuration there is, traced as the trainer would compile it, without allocating its weights."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from videodit.models.vae import VAE, VAEConfig
from videodit.parallel.mesh import make_mesh
from videodit.train.config import DiTRun, VAERun
from videodit.train.config_io import from_config_dict, load
from videodit.train.feed import Batch
from videodit.train.optim import learning_rate, make_optimizer
from videodit.train.state import abstract_state, matrices, shapes_of
from videodit.train.step import make_train_step
from videodit.train.tasks import DiTTask, VAETask

CONFIGS = Path(__file__).parents[1] / "configs"
VARIANTS = {
    "quickstart": ["vae", "dit"],
    "footage": ["vae", "dit"],
    "vae": [""],
    "wan": ["1.3b", "14b"],
    "dit": ["toy", "S", "B", "L", "XL", "1.3b", "14b"],
}


def test_no_configuration_is_forgotten():
    assert {path.stem for path in CONFIGS.glob("*.py")} == set(VARIANTS)


@pytest.mark.parametrize("name", [f"{file}:{v}".rstrip(":") for file, vs in VARIANTS.items() for v in vs])
def test_traces_abstractly(name):
    file, _, variant = name.partition(":")
    run = load(f"{CONFIGS / file}.py" + (f":{variant}" if variant else ""))
    task = VAETask(run) if isinstance(run, VAERun) else DiTTask(run, abstract_vae(run))
    schedule, model = learning_rate(run.optim, run.steps), shapes_of(task.init)
    optimizer = make_optimizer(run.optim, schedule, matrices(model))
    mesh = make_mesh(run.mesh, heads=run.heads)
    graphdef, state = abstract_state(model, optimizer, mesh)
    step = make_train_step(run, task, graphdef, optimizer, schedule)
    new, metrics = jax.eval_shape(step, state, abstract_batch(run), task.frozen())
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert metrics["loss"].shape == ()
    if variant == "14b":
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


def abstract_vae(run: DiTRun) -> VAE:
    """Shapes alone of an autoencoder that fits the run."""
    if "quickstart" in run.vae or "footage" in run.vae:
        source = "quickstart" if "quickstart" in run.vae else "footage"
        cfg = load(f"{CONFIGS / source}.py:vae").model
    else:
        cfg = VAEConfig(latent_channels=run.model.in_channels)
    return nnx.eval_shape(lambda: VAE(cfg, rngs=nnx.Rngs(0)))


def abstract_batch(run: VAERun | DiTRun) -> Batch:
    """The shapes of a batch of pixels."""
    data, shape = run.data, jax.ShapeDtypeStruct
    return Batch(
        video=shape((data.batch_size, data.frames, data.height, data.width, 3), np.float32),
        latent_mean=None,
        latent_logvar=None,
        text_ids=shape((data.batch_size, data.text_length), np.int32),
        text_mask=shape((data.batch_size, data.text_length), bool),
        fps=shape((data.batch_size,), np.float32),
        real=shape((data.batch_size,), bool),
    )
