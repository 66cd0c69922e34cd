"""Packed sequences: the loss and gradient of a clip are those of the clip alone."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from videodit_data.reading.batch_iterator import BatchIterator
from videodit_data.reading.mixture import WeightedDataset
from videodit_data.reading.packing import Packing
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.text_inputs import TokenizedText
from videodit_data.storage import manifest, records
from videodit_data.tokenizer import Tokenizer
from videodit_data.tokenizer import train as train_tokenizer

from tests.train.test_tasks import DIT_RUN, VAE_CONFIG
from tests.train.toy import build_noisy_model
from videodit.config.data import PackingConfig
from videodit.diffusion.objective import ObjectiveConfig
from videodit.diffusion.timesteps import TimestepConfig
from videodit.models.vae import VAE
from videodit.nn.embed import unpatchify
from videodit.nn.state import split_model
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.train.batch import Batch, to_devices
from videodit.train.tasks.text_to_video import EVAL_TIMES, TextToVideoTask

SIZES = [(1, 4, 4), (3, 4, 6), (2, 6, 4)] * 2  # of latents
LENGTH, CLIPS, TEXT = 40, 4, 6
RUN = replace(
    DIT_RUN,
    data=replace(DIT_RUN.data, packing=PackingConfig(length=LENGTH, clips=CLIPS), batch_size=2, text_length=TEXT),
    model=replace(DIT_RUN.model, fps_reference=8.0, pooled_text=True),
    text=replace(DIT_RUN.text, vocab_size=64),
)
CAPTIONS = ["a red circle", "two blue squares drift", "a star falls", "it is dark", "", "green hills"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Build a data set of latents of all sizes and two frame rates; return its path."""
    rng = np.random.default_rng(0)

    def record(number):
        t, y, x = SIZES[number]
        size = {"fps": (8.0, 16.0)[number % 2], "frames": 1 + 2 * (t - 1), "height": 2 * y, "width": 2 * x}
        clip = records.from_video(f"clip-{number}", b"", [CAPTIONS[number]], **size, source="tests", licence="CC0-1.0")
        mean, logvar = (rng.standard_normal((t, y, x, 2), np.float32) for _ in range(2))
        return records.with_latent(clip, mean, logvar, **size)

    path = tmp_path_factory.mktemp("packed") / "set"
    manifest.build(path, lambda part: map(record, part), len(SIZES), info={})
    return path


@pytest.fixture(scope="module")
def host(data):
    """Return a host batch of all clips in two packed sequences."""
    tokenizer = Tokenizer(train_tokenizer(CAPTIONS, 40))
    packing = Packing(LENGTH, CLIPS, stride=(2, 2))
    config = ReaderConfig((WeightedDataset(str(data)),), packing, batch_size=2).as_evaluation()
    batches = list(BatchIterator(config, TokenizedText(tokenizer, TEXT)))
    assert len(batches) == 1 and batches[0].arrays.valid.sum() == len(SIZES)
    return batches[0]


def build_task(run):
    vae = build_noisy_model(lambda: VAE(VAE_CONFIG, rngs=nnx.Rngs(0)), 0)
    vae.latent_mean.set_value(jnp.array([0.5, -0.5]))
    vae.latent_std.set_value(jnp.array([2.0, 0.5]))
    return TextToVideoTask(run, {"vae": vae})


def build_model(task):
    return build_noisy_model(lambda: task.init(nnx.Rngs(1)), 1)


def on_device(host):
    return to_devices(host, jax.sharding.SingleDeviceSharding(jax.devices()[0]))


def iter_clips(host, data, draws):
    """Yield the index of every clip in the packed batch, the clip as a batch of its own, and its draws."""
    sources = {record.id: record for record in manifest.records(data)}
    for row, names in enumerate(host.clip_ids):
        for k, name in enumerate(names):
            if not name:
                continue
            mean, logvar = sources[name].latent.arrays()
            t, y, x, _ = mean.shape
            clip_tokens = np.asarray(host.arrays.segments[row] == k + 1)
            alone = Batch(
                video=None,
                latent_mean=mean[None],
                latent_logvar=logvar[None],
                text_ids=host.arrays.text_ids[row, k][None],
                text_mask=host.arrays.text_mask[row, k][None],
                fps=host.arrays.fps[row, k][None],
                valid=np.ones(1, bool),
            )
            fields = [name for name in ("noise", "latent") if name in draws]
            patches = {name: jnp.asarray(draws[name])[row, clip_tokens][None] for name in fields}
            clip_draws = {name: unpatchify(of, (t, y // 2, x // 2), (1, 2, 2)) for name, of in patches.items()}
            clip_draws["t"] = jnp.asarray(draws["t"])[row, k][None]
            yield (row, k), alone, clip_draws


@pytest.mark.parametrize(
    "changed",
    [pytest.param({}, marks=pytest.mark.slow), {"latent_sampling": "sample", "attend_padding": True}],
    ids=str,
)
def test_loss_and_gradient_are_those_of_the_clips_alone(host, data, changed):
    latent_sampling = changed.get("latent_sampling", "mean")
    run = replace(
        RUN, latent_sampling=latent_sampling, model=replace(RUN.model, attend_padding="attend_padding" in changed)
    )
    task, single = (
        build_task(run),
        build_task(replace(run, data=replace(run.data, packing=PackingConfig()))),
    )
    graphdef, params, buffers = split_model(build_model(task))
    batch = on_device(host)
    draws = task.draw(batch, jax.random.key(5))

    def total(kind, params, batch, draws):
        loss, _ = kind.loss(nnx.merge(graphdef, params, buffers), kind.frozen_arrays(), batch, draws)
        return jnp.sum(loss, where=batch.valid), loss

    packed = jax.jit(jax.value_and_grad(lambda *args: total(task, *args), has_aux=True))
    alone = jax.jit(jax.value_and_grad(lambda *args: total(single, *args), has_aux=True))
    (_, losses), gradient = packed(params, batch, draws)
    expected = jax.tree.map(jnp.zeros_like, params)
    for (row, k), clip, clip_draws in iter_clips(host, data, draws):
        (value, _), one = alone(params, clip, clip_draws)
        np.testing.assert_allclose(losses[row, k], value, rtol=1e-5)
        expected = jax.tree.map(jnp.add, expected, one)
    for path, there in jax.tree.leaves_with_path(expected):
        here = dict(jax.tree.leaves_with_path(gradient))[path]
        assert float(jnp.linalg.norm(here - there)) <= 2e-5 * float(jnp.linalg.norm(there)) + 1e-7, path
    assert np.isfinite(np.asarray(losses)).all()


def test_held_out_numbers_are_at_fixed_times_and_samples_of_the_run_s_size(host):
    task = build_task(RUN)
    model, batch = build_model(task), on_device(host)
    values = jax.jit(lambda key: task.evaluate(model, task.frozen_arrays(), batch, key))(jax.random.key(0))
    assert set(values) == {"loss"} | {f"loss_t{t}" for t in EVAL_TIMES}
    assert values["loss"].shape == batch.valid.shape
    np.testing.assert_allclose(values["loss"], np.mean([values[f"loss_t{t}"] for t in EVAL_TIMES], axis=0), rtol=1e-5)
    clips = jax.jit(lambda key: task.sample(model, task.frozen_arrays(), batch, key))(jax.random.key(0))
    assert clips.shape == (2, 5, 8, 8, 3) and np.abs(clips).max() <= 1


def with_timesteps(timesteps):
    return replace(RUN, objective=ObjectiveConfig(timesteps=timesteps))


def test_longer_clips_are_trained_nearer_to_noise(host):
    """The shift of times is that of the clip, not of its packed sequence."""
    run = with_timesteps(TimestepConfig(base_tokens=1, stratified=False))
    task, batch = build_task(run), on_device(host)
    plain = build_task(with_timesteps(TimestepConfig(stratified=False)))
    shifted, before = (np.asarray(each.draw(batch, jax.random.key(2))["t"]) for each in (task, plain))
    tokens = np.stack([(host.arrays.segments == k + 1).sum(1) for k in range(CLIPS)], axis=1)
    shift = np.sqrt(np.maximum(tokens, 1))
    np.testing.assert_allclose(shifted, shift * before / (1 + (shift - 1) * before), rtol=1e-5)


@pytest.mark.slow
def test_packed_sequences_on_a_mesh_match_one_device(host):
    run = replace(RUN, mesh=MeshConfig(data=2, context=4))
    task = build_task(run)
    model, frozen = build_model(task), task.frozen_arrays()
    loss = jax.jit(lambda batch, draws: task.loss(model, frozen, batch, draws)[0])
    here = on_device(host)
    draws = task.draw(here, jax.random.key(1))
    expected = loss(here, draws)
    mesh = make_mesh(run.mesh, heads=2)
    with jax.set_mesh(mesh):
        there = to_devices(host, NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
        found = loss(there, jax.device_get(draws))
    np.testing.assert_allclose(found, expected, rtol=2e-5)
