"""From videos of several sizes to a transformer trained on packed sequences of their latents."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from videodit_data.storage import manifest
from videodit_data.video import decode

from tests.cli.test_cli import TINY, run
from videodit.checkpoint.metrics_file import read_metrics
from videodit.checkpoint.restore import load_vae, restore_over_devices
from videodit.config.io import load
from videodit.nn.state import split_model
from videodit.parallel.mesh import make_mesh
from videodit.plan.program import build_train_program
from videodit.train.data import parse_datasets

SHAPES = ("--resolutions", "16,32", "--aspects", "1:1,2:1", "--frames", "5,9")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for seed, (frames, height, width) in enumerate([(9, 32, 32), (5, 24, 48), (9, 16, 16)]):
        size = ("--frames", frames, "--height", height, "--width", width, "--seed", seed)
        assert run("data", "toyworld", "--out", root / f"set{seed}", "--clips", 10, "--processes", 1, *size) == 0
    assert run("data", "tokenizer", root / "set0", "--out", root / "tokenizer.model", "--vocabulary", 128) == 0
    vae = ("--config.data.path=" + str(root / "set2"), "--config.model.mid_attention=False", "--config.save_every=1")
    training_alone = ("--config.eval_every=0", "--config.sample_every=0")
    assert run("train", "--config", f"{TINY}:vae", "--workdir", root / "vae", *vae, *training_alone) == 0
    shutil.copytree(root / "vae", root / "other")
    shutil.rmtree(root / "other" / "checkpoints" / "2")
    for seed in range(3):
        out = root / f"latents{seed}"
        assert run("data", "encode", root / f"set{seed}", "--vae", root / "vae", "--out", out, *SHAPES) == 0
    return root


def test_clips_are_encoded_in_their_best_shapes(root):
    shards = [manifest.load(root / f"latents{seed}").shards for seed in range(3)]
    sizes = [{*zip(s[0].frames, s[0].heights, s[0].widths, strict=True)} for s in shards]
    assert sizes == [{(9, 32, 32)}, {(5, 24, 48)}, {(9, 16, 16)}]
    vae, video, encoded_records = (
        load_vae(root / "vae")[0],
        manifest.records(root / "set1"),
        manifest.records(root / "latents1"),
    )
    for number in (0, 9):
        frames = decode(video[number].video).astype(np.float32)[None] / 127.5 - 1
        mean, logvar = jax.jit(vae.encode)(jnp.asarray(frames))
        arrays = [x.astype(np.float32) for x in encoded_records[number].latent.arrays()]  # of bfloat16
        np.testing.assert_allclose(arrays[0], mean[0], rtol=2**-8, atol=2e-3 * np.abs(mean).max())
        np.testing.assert_allclose(arrays[1], logvar[0], rtol=2**-8, atol=2e-2)
        assert encoded_records[number].captions == video[number].captions


def test_a_clip_that_fills_no_shape_is_dropped_by_name(root, tmp_path):
    command = ("data", "encode", root / "set1", "--vae", root / "vae")
    assert run(*command, "--out", tmp_path / "none", "--frames", "9", "--resolutions", "16") == 2
    mixed = tmp_path / "mixed"
    first, second = manifest.records(root / "set0"), manifest.records(root / "set1")
    manifest.build(mixed, lambda part: ([first[0], second[0]][n] for n in part), 2, info={})
    assert (
        run("data", "encode", mixed, *command[3:], "--out", tmp_path / "out", "--frames", "9", "--resolutions", "16")
        == 0
    )
    encoded = manifest.load(tmp_path / "out")
    assert encoded.clips == 1 and encoded.left_out == (manifest.LeftOut(second[0].id, "too short for the buckets"),)


def packed_command(root, *more):
    paths = [f"--config.data.path={root / 'latents0'}:2,{root / 'latents1'},{root / 'latents2'}"]
    paths += [f"--config.data.eval_path={root / 'latents1'}", f"--config.tokenizer={root / 'tokenizer.model'}"]
    return ("train", "--config", f"{TINY}:packed", *paths, *more)


@pytest.fixture(scope="module")
def straight(root):
    """Train four steps on packed sequences; return the workdir."""
    more = (f"--config.vae={root / 'vae'}", "--config.steps=4")
    assert run(*packed_command(root, "--workdir", root / "straight", *more)) == 0
    return root / "straight"


@pytest.mark.slow
def test_packed_training_resumes_exactly(root, straight):
    again = root / "again"
    shutil.copytree(straight, again)
    shutil.rmtree(again / "checkpoints" / "4")
    assert run(*packed_command(root, "--workdir", again, f"--config.vae={root / 'vae'}", "--config.steps=4")) == 0
    whole, resumed = (
        jax.tree.leaves(split_model(restore_over_devices(workdir, "params"))[1]) for workdir in (straight, again)
    )
    assert all(np.array_equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_packed_sequences_train(root, straight):
    lines = read_metrics(straight)
    assert {line["step"] for line in lines} >= {1, 2, 3, 4}
    assert any("eval/loss" in line for line in lines) and list((straight / "samples").glob("*.png"))
    epochs = [line[f"epochs/{root / 'latents0'}"] for line in lines if "grad_norm" in line]
    assert epochs == sorted(epochs) and epochs[-1] > 0
    out = root / "sample.png"
    assert run("sample", "--checkpoint", straight, "--prompt", "a red circle", "--out", out) == 0
    planned = load(f"{TINY}:packed")
    assert build_train_program(planned, make_mesh(planned.mesh)).task.tokens_per_clip == 64


def bucketed_command(root, *more):
    paths = [f"--config.data.path={root / 'latents0'}:2,{root / 'latents1'}", f"--config.vae={root / 'vae'}"]
    paths += [f"--config.tokenizer={root / 'tokenizer.model'}", "--config.data.buckets.tokens=400"]
    return ("train", "--config", f"{TINY}:dit", *paths, *more)


def test_batches_of_several_shapes_train(root):
    training_alone = ("--config.steps=3", "--config.eval_every=0", "--config.sample_every=0")
    assert run(*bucketed_command(root, "--workdir", root / "buckets", *training_alone)) == 0
    lines = [line for line in read_metrics(root / "buckets") if "grad_norm" in line]
    assert len(lines) == 3 and all(np.isfinite(line["loss"]) for line in lines)
    served = [lines[-1][f"epochs/{root / name}"] * 10 for name in ("latents0", "latents1")]
    assert sum(served) == pytest.approx(24) and min(served) >= 8  # three batches of eight clips, of both shapes


@pytest.mark.slow
def test_training_on_several_shapes_resumes_exactly(root):
    straight, again = root / "shapes", root / "shapes-again"
    train = bucketed_command(root, "--config.steps=4")
    assert run(*train, "--workdir", straight) == 0
    shutil.copytree(straight, again)
    shutil.rmtree(again / "checkpoints" / "4")
    assert run(*train, "--workdir", again) == 0
    whole, resumed = (
        jax.tree.leaves(split_model(restore_over_devices(workdir, "params"))[1]) for workdir in (straight, again)
    )
    assert all(np.array_equal(a, b) for a, b in zip(whole, resumed, strict=True))


@pytest.mark.slow
def test_an_autoencoder_trains_on_clips_of_several_shapes(root):
    data = [f"--config.data.path={root / 'set0'},{root / 'set1'}:3", "--config.data.buckets.tokens=2048"]
    data += ["--config.data.buckets.resolutions=16,32", "--config.data.buckets.aspects=1.0,2.0"]
    data += ["--config.data.buckets.frames=5,9", "--config.steps=3", f"--config.data.eval_path={root / 'set1'}"]
    assert run("train", "--config", f"{TINY}:vae", "--workdir", root / "vae-shapes", *data) == 0
    assert load_vae(root / "vae-shapes")[2] == 3
    lines = read_metrics(root / "vae-shapes")
    assert any("eval/psnr" in line for line in lines) and list((root / "vae-shapes" / "samples").glob("*.png"))


def test_latents_of_another_autoencoder_are_refused(root, capsys):
    assert run(*packed_command(root, f"--config.vae={root / 'other'}", "--workdir", root / "refused")) == 2
    stderr = " ".join(capsys.readouterr().err.split())
    assert "latents0 were not made by the autoencoder in" in stderr and "weights" in stderr
    assert not (root / "refused").exists()


def test_an_autoencoder_is_not_trained_on_latents(root, capsys):
    data = f"--config.data.path={root / 'latents2'}"
    assert run("train", "--config", f"{TINY}:vae", "--workdir", root / "no", data) == 2
    assert "latents2 holds latents, and an autoencoder is trained on videos" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (root / "no").exists()


def test_data_sets_are_named_by_path_and_weight():
    named = [(part.path, part.weight) for part in parse_datasets("a/b:3, gs://bucket/c,d:0.5")]
    assert named == [("a/b", 3.0), ("gs://bucket/c", 1.0), ("d", 0.5)]
    with pytest.raises(ValueError, match="named like DIR:3,DIR:1, not 'a,,b'"):
        parse_datasets("a,,b")
