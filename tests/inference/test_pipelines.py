"""Sampling from imported releases: every kind of Wan's in small."""

import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from tests.cli import releases
from tests.cli.test_cli import TINY
from tests.cli.test_weights import run
from videodit.checkpoint.restore import (
    load_text_encoder,
    load_text_encoder_on_host,
    load_vision_encoder,
    restore_over_devices,
)
from videodit.checkpoint.workdir import read_config
from videodit.config.io import load
from videodit.diffusion.sample import sample_conditioned
from videodit.inference.images import ConditionImages, resize
from videodit.inference.pipeline import Pipeline
from videodit.interop import schedulers
from videodit.interop.safetensors import Weights
from videodit.models.conditioning import Conditioning
from videodit.models.pixels import to_uint8
from videodit.nn.attention_spec import AttentionSpec
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.train.run import trained_params

SIZE = (5, 16, 16)
PROMPTS = ["a red fox runs", "snow falls"]
IMAGE_TO_VIDEO = dataclasses.replace(releases.DIT, in_channels=10)  # a mask of two frames a latent, and latents
TEXT_ONLY = {"transformer": releases.DIT, "vae": releases.VAE, "text_encoder": releases.TEXT}
TWO = TEXT_ONLY | {"transformer_2": releases.DIT}
IMAGE = {"transformer": dataclasses.replace(IMAGE_TO_VIDEO, image_width=12), "image_encoder": releases.IMAGE}
BOTH = {
    "transformer": dataclasses.replace(IMAGE_TO_VIDEO, image_width=12, image_tokens=10),
    "image_encoder": releases.IMAGE,
}


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Return a function that imports a release once and returns the directory."""
    directories = {}

    def get(kind, parts, **files):
        if kind not in directories:
            root = tmp_path_factory.mktemp(kind)
            releases.write(root / "release", parts, **files)
            assert run("import", "--kind", kind, "--from", root / "release", "--to", root / "ours") == 0
            directories[kind] = root / "ours"
        return directories[kind]

    return get


@pytest.fixture(scope="module")
def t2v(imported):
    return imported("wan2.1-t2v", TEXT_ONLY, scheduler={"_class_name": schedulers.UNIPC, "flow_shift": 3.0})


@pytest.fixture(scope="module")
def pipeline(t2v):
    """Load one pipeline for all tests that do not change it: it compiles a shape once."""
    return Pipeline.load(t2v)


def clips(pipeline, **options):
    sampler = dataclasses.replace(pipeline.run.sampler, steps=3)
    return np.stack(list(pipeline.generate(PROMPTS, size=SIZE, **({"sampler": sampler, "seed": 1} | options))))


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)
    return Image.fromarray(pixels)


def test_text_to_video_is_the_composition_of_its_parts(pipeline):
    """As in the reference (`tests/interop/test_pipeline.py`), text is padded with zeros, and all of it attended to."""
    text, mask = pipeline.captions([*PROMPTS, ""])
    assert text.shape == (3, 512, 16) and not text[~mask].any() and mask.sum(1).min() >= 1
    cfg = dataclasses.replace(pipeline.run.sampler, steps=3)
    assert (cfg.guidance, cfg.shift, cfg.solver, cfg.quantize_timesteps) == (5.0, 3.0, "unipc", True)
    shape = pipeline.vae.cfg.latent_shape(*SIZE)

    @nnx.jit
    def by_hand(model, vae, noise):
        def velocity(x, t, text):
            return model.dit(x, t, Conditioning(text, jnp.ones(text.shape[:2], bool)))

        cond, uncond = jnp.asarray(text[:2]), jnp.broadcast_to(text[2], text[:2].shape)
        return vae.decode(vae.denormalize(sample_conditioned(cfg, velocity, noise, cond, uncond)))

    keys = [jax.random.fold_in(jax.random.key(1), i) for i in range(2)]
    noise = jnp.stack([jax.random.normal(key, shape) for key in keys])
    expected = to_uint8(np.asarray(by_hand(pipeline.model, pipeline.vae, noise)))
    assert np.abs(clips(pipeline).astype(int) - expected).max() <= 1


def test_texts_are_encoded_once(t2v, tmp_path):
    """Stored embeddings are read without the encoder, which only new texts need."""
    moved = tmp_path / "moved"
    shutil.copytree(t2v, moved)
    first = clips(Pipeline.load(moved), negative_prompt="blurred")
    assert len(list((moved / "text" / "embeddings").glob("*.safetensors"))) >= 3
    shutil.rmtree(moved / "text" / "checkpoints")
    untidy = clips(Pipeline.load(moved), negative_prompt=" blurred\n")
    np.testing.assert_array_equal(untidy, first)
    np.testing.assert_array_equal(clips(Pipeline.load(moved), negative_prompt="blurred"), first)
    with pytest.raises(ValueError, match=r"there is no checkpoint in .*text"):
        clips(Pipeline.load(moved), negative_prompt="something new")


@pytest.mark.parametrize(
    "sizes",
    [{"data": 2, "context": 2, "fsdp": 2}, pytest.param({"data": 1, "context": 8}, marks=pytest.mark.slow)],
    ids=str,
)
def test_a_mesh_makes_the_same_clips(t2v, pipeline, sizes):
    here = clips(pipeline)
    there = clips(Pipeline.load(t2v, mesh=MeshConfig(**sizes)))
    assert np.abs(here.astype(int) - there).max() <= 1


def test_a_negative_prompt_and_the_seed_matter_and_images_are_refused(pipeline):
    first = clips(pipeline)
    assert (clips(pipeline, negative_prompt="snow") != first).any() and (clips(pipeline, seed=2) != first).any()
    with pytest.raises(ValueError, match="makes clips of text alone: it takes no image"):
        clips(pipeline, images=ConditionImages(picture(0)))


@pytest.mark.parametrize(
    ("kind", "parts"), [pytest.param("wan2.1-i2v", IMAGE, marks=pytest.mark.slow), ("wan2.1-flf2v", BOTH)]
)
def test_images_condition_the_clips(imported, kind, parts):
    pipeline = Pipeline.load(imported(kind, TEXT_ONLY | parts))
    last = picture(1) if kind == "wan2.1-flf2v" else None
    first = clips(pipeline, images=ConditionImages(picture(0), last))
    assert (clips(pipeline, images=ConditionImages(picture(2), last)) != first).any()
    if last:
        with pytest.raises(ValueError, match="between two images: give a last image too"):
            clips(pipeline, images=ConditionImages(picture(0)))
        assert (clips(pipeline, images=ConditionImages(picture(0), picture(2))) != first).any()
    with pytest.raises(ValueError, match="makes clips of images: give a first image"):
        clips(pipeline)


def test_a_clip_continues_its_first_frame(imported):
    """The autoencoder encodes the first frame alone, so that it comes out reconstructed, whatever follows."""
    levels = {"channels": (4, 8, 8), "strides": ((2, 2), (1, 2)), "time_kernel": (3, 3, 3)}
    vae = dataclasses.replace(releases.VAE, shortcuts="levels", upsample_to="same", **levels)
    pipeline = Pipeline.load(imported("wan2.2-ti2v", TEXT_ONLY | {"vae": vae}))
    image = picture(0)
    reconstruct = nnx.jit(lambda vae, frames: vae.decode(vae.encode(frames)[0]))
    reconstructed = reconstruct(pipeline.vae, jnp.asarray(resize(image, 16, 16))[:, None])
    expected = to_uint8(np.asarray(reconstructed))[0, 0]
    videos = clips(pipeline, images=ConditionImages(image))
    assert np.abs(videos[:, 0].astype(int) - expected).max() <= 1 and (videos[0, 1:] != videos[1, 1:]).any()
    assert (clips(pipeline)[:, 0] != expected).any()  # from text alone, it generates another first frame
    with pytest.raises(ValueError, match="takes a first image alone"):
        clips(pipeline, images=ConditionImages(image, image))


def test_two_experts_share_the_times(imported):
    """A boundary at either end uses one expert alone; one in between uses both."""
    folder = imported("wan2.2-t2v", TWO, index={"boundary_ratio": 0.8})
    pipeline = Pipeline.load(folder)
    sampler = dataclasses.replace(pipeline.run.sampler, steps=3)
    assert sampler.expert_boundary == 0.8
    swapped = dataclasses.replace(pipeline, model=pipeline.low_noise_expert, low_noise_expert=pipeline.model)

    def at(pipeline, boundary):
        return clips(pipeline, sampler=dataclasses.replace(sampler, expert_boundary=boundary))

    high, low, mixed = at(pipeline, 0.0), at(pipeline, 1.1), at(pipeline, 0.8)
    np.testing.assert_array_equal(high, at(swapped, 1.1))
    np.testing.assert_array_equal(low, at(swapped, 0.0))
    assert (mixed != high).any() and (mixed != low).any()
    config = json.loads((folder / "config.json").read_text())
    config["low_noise_expert"] = None
    (folder.parent / "lone").mkdir()
    (folder.parent / "lone" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"lacks its expert for times below 0\.8"):
        Pipeline.load(folder.parent / "lone")


def test_parts_of_a_model_are_never_of_an_earlier_checkpoint(imported, tmp_path, caplog):
    """A checkpoint without content is a damaged one, which the model itself steps over."""
    two = tmp_path / "two"
    shutil.copytree(imported("wan2.2-t2v", TWO, index={"boundary_ratio": 0.8}), two)
    run_there = read_config(two)
    for folder in (two, two / run_there.text_encoder):
        (folder / "checkpoints" / "1").mkdir()
    damaged = r"no checkpoint in .*/{}/checkpoints can be read: that of step 1 is damaged .* earlier one, of step 0"
    assert Pipeline.load(two).step == 0
    assert "that of step 0 is taken" in caplog.text
    with pytest.raises(ValueError, match=damaged.format("text")):
        load_text_encoder(two / run_there.text_encoder, run_there)
    with pytest.raises(ValueError, match=damaged.format("text")):
        load_text_encoder_on_host(two / run_there.text_encoder)
    (two / run_there.low_noise_expert / "checkpoints" / "1").mkdir()
    with pytest.raises(ValueError, match=damaged.format(run_there.low_noise_expert)):
        Pipeline.load(two)
    vision = tmp_path / "vision"
    shutil.copytree(imported("wan2.1-flf2v", TEXT_ONLY | BOTH) / "image", vision)
    (vision / "checkpoints" / "1").mkdir()
    with pytest.raises(ValueError, match=damaged.format("vision")):
        load_vision_encoder(vision)


def test_strict_holds_for_the_weights_that_a_run_begins_with(t2v, tmp_path):
    shutil.copytree(t2v, source := tmp_path / "source")
    (source / "checkpoints" / "1").mkdir()
    tuned, mesh = load(f"{TINY}:tune"), make_mesh(MeshConfig(), jax.devices()[:1])
    assert trained_params(source, tuned)(mesh)
    with pytest.raises(ValueError, match=r"that of step 1 is damaged .* earlier one, of step 0"):
        trained_params(source, tuned, strict=True)(mesh)


def test_the_command_writes_a_clip_and_its_provenance(t2v, tmp_path, capsys):
    out = tmp_path / "fox.png"
    args = ("sample", "--checkpoint", t2v, "--prompt", PROMPTS[0], "--negative-prompt", "snow", "--out", out)
    small = ("--frames", 5, "--height", 16, "--width", 16, "--steps", 2)
    assert run(*args, *small, "--mesh", "context=2,data=4") == 0
    facts = json.loads(out.with_suffix(".json").read_text())
    assert (facts["negative_prompt"], facts["prompt"]) == ("snow", PROMPTS[0])
    (tmp_path / "text.png").write_text("no image")
    for wrong, sentence in (
        (("--image", tmp_path / "none.png"), "there is no image"),
        (("--image", tmp_path / "text.png"), "is not an image that can be read"),
        (("--last-image", out), "a last image goes with a first one"),
    ):
        assert run(*args, *small, *wrong) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_several_processes_make_the_clip_of_one(t2v, tmp_path):
    """Only the main process writes."""
    fresh = tmp_path / "ours"
    shutil.copytree(t2v, fresh, ignore=shutil.ignore_patterns("embeddings"))
    small = ("--frames", 5, "--height", 16, "--width", 16, "--steps", 2, "--prompt", PROMPTS[0])
    arguments = ("sample", "--checkpoint", fresh, *small, "--mesh", "data=1,fsdp=2,context=2")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    command = [sys.executable, "-c", "from videodit.cli import main; raise SystemExit(main())", *map(str, arguments)]
    command += ["--coordinator", address, "--processes", "2"]
    flags = re.sub(r"(--xla_force_host_platform_device_count)=\d+", r"\1=2", os.environ["XLA_FLAGS"])
    started = [
        subprocess.Popen(
            [*command, "--out", str(tmp_path / str(index) / "fox.png"), "--process", str(index)],
            env={**os.environ, "XLA_FLAGS": flags, "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        stderr = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], stderr
    assert not (tmp_path / "1").exists()
    assert run(*arguments[:2], t2v, *small, "--out", tmp_path / "alone.png") == 0
    there, here = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("0/fox.png", "alone.png"))
    assert np.abs(there - here).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["tune", "lora"])
def test_released_weights_are_finetuned_and_exported_in_the_reference_layout(t2v, tmp_path, variant):
    """Weights are imported, trained, sampled, exported and imported again; the text encoder never changes."""
    assert (
        run("data", "toyworld", "--out", tmp_path / "data", "--clips", 8, "--frames", 5, "--height", 32, "--width", 32)
        == 0
    )
    data = tmp_path / "data"
    if variant == "lora":  # on stored embeddings, in place of the text encoder
        data = tmp_path / "embedded"
        arguments = ("--text", t2v / "text", "--text-length", 16)
        assert run("data", "encode", tmp_path / "data", "--out", data, *arguments) == 0
    args = ("train", "--config", f"{TINY}:{variant}", "--init", t2v, f"--config.data.path={data}")
    work = tmp_path / "run"
    assert run(*args, "--workdir", work) == 0
    small = ("--frames", 5, "--height", 16, "--width", 16, "--steps", 2)
    assert run("sample", "--checkpoint", work, "--prompt", "snow falls", "--out", tmp_path / "s.png", *small) == 0
    for which in ("ema", "params"):
        assert run("export", "--checkpoint", work, "--to", tmp_path / which, "--weights", which) == 0
    assert run("export", "--checkpoint", t2v, "--to", tmp_path / "base") == 0
    base, averaged, last = (Weights(tmp_path / name) for name in ("base", "ema", "params"))
    assert set(base) == set(last)
    changed = {name for name in base if (base[name].read() != last[name].read()).any()}
    if variant == "lora":
        assert changed == {name for name in base if re.search(r"(to_[qkv]|to_out.0|ffn.net.*)\.weight", name)}
    else:
        assert len(changed) > 0.9 * len(base)
    assert any((averaged[name].read() != last[name].read()).any() for name in changed)

    pipeline = Pipeline.load(work, weights="params")
    exported = tmp_path / "again"
    assert run("import", "--kind", "wan2.1-t2v", "--from", tmp_path / "params", "--to", exported) == 0
    graph, state = nnx.split(restore_over_devices(exported).dit)
    x, text = jnp.ones((1, 3, 8, 8, 4)), jnp.ones((1, 4, 16))
    call = (x, jnp.array([0.5]), Conditioning(text, jnp.ones((1, 4), bool)))
    np.testing.assert_allclose(nnx.merge(graph, state)(*call), pipeline.model.dit(*call), rtol=1e-4, atol=1e-5)


def test_initial_params_must_have_the_run_s_shape(t2v, tmp_path, capsys):
    args = ("train", "--config", f"{TINY}:tune", "--init", t2v, "--workdir", tmp_path / "run")
    assert run(*args, "--config.model.depth=3") == 2
    assert "is another one than the run's: depth is 2 there and 3 here" in " ".join(capsys.readouterr().err.split())
    assert run("train", "--config", f"{TINY}:vae", "--init", t2v, "--workdir", tmp_path / "run") == 2
    assert "init is for transformers" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    tuned = load(f"{TINY}:tune")
    masked = dataclasses.replace(tuned.model, attention=AttentionSpec(kind="frame_causal"))
    trained_params(t2v, dataclasses.replace(tuned, model=masked))  # parameters do not depend on attention
