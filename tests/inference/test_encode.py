"""Encoded data sets: the same bytes from any number of processes, interrupted or not."""

import dataclasses
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from videodit_data.formats import open_dataset
from videodit_data.reading.clip_window import Window
from videodit_data.reading.sample import ClipShape, decode_window
from videodit_data.reading.text_inputs import CachedText, TokenizedText
from videodit_data.storage import manifest, shard_check
from videodit_data.storage.embeddings import Embeddings
from videodit_data.tokenizer import Tokenizer
from videodit_data.toyworld import build

from tests.cli import releases, tiny
from tests.cli.test_cli import run
from tests.train.test_tasks import VAE_RUN
from tests.train.toy import build_noisy_model
from videodit.checkpoint import latent_stats
from videodit.checkpoint.checkpoints import save_params
from videodit.checkpoint.identity import vae_identity
from videodit.checkpoint.restore import load_text_encoder_on_host, load_vae
from videodit.checkpoint.workdir import describe
from videodit.config.io import from_config_dict
from videodit.config.run import ImportedTextEncoder
from videodit.inference.encode import dataset as encode
from videodit.inference.encode import latents as latents_module
from videodit.inference.encode import work_sharing
from videodit.inference.encode.bucket_options import BucketOptions
from videodit.inference.encode.clip_crops import CropConfig, select_crops
from videodit.inference.encode.embeddings import TextSource
from videodit.inference.encode.latents import LatentEncoder
from videodit.inference.tokenizer import open_tokenizer
from videodit.models.pixels import to_float
from videodit.models.text import TextEncoder
from videodit.models.vae import VAE
from videodit.nn.state import split_model
from videodit.train.data import open_texts

ROOT = Path(__file__).parents[2]
CLIPS, SHARDS, LENGTH = 7, 3, 12


def store(workdir, config, make, seed):
    """Write a network with random weights to a directory."""
    workdir.mkdir()
    save_params(workdir / "checkpoints", *split_model(build_noisy_model(make, seed))[1:])
    describe(workdir, config)
    return workdir


def write_models(root):
    """Write an autoencoder and a text encoder."""
    vae = replace(VAE_RUN, ema=0.0)
    store(root / "vae", vae, lambda: VAE(vae.model, rngs=nnx.Rngs(0)), 0)
    latent_stats.write(root / "vae", 0, np.array([0.1, -0.1], np.float32), np.array([2.0, 0.5], np.float32))
    store(
        root / "text", ImportedTextEncoder(model=releases.TEXT), lambda: TextEncoder(releases.TEXT, rngs=nnx.Rngs(0)), 1
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("encode")
    size = {"height": 12, "width": 20, "frames": 9, "fps": 8.0}
    build(root / "clips", clips=CLIPS, level="easy", seed=0, shards=SHARDS, **size)
    assert run("data", "tokenizer", root / "clips", "--out", root / "tokenizer.model", "--vocabulary", 96) == 0
    write_models(root)
    return root


CROP_OPTIONS = ("--resolutions", "8,12", "--aspects", "1:1", "--frames", "5", "--every-resolution", "--crops", "2")


def command(root, out, *more):
    options = ("--vae", root / "vae", "--text", root / "text", "--text-length", LENGTH)
    return ("data", "encode", root / "clips", "--out", out, *options, *CROP_OPTIONS, *more)


@pytest.fixture(scope="module")
def encoded(root):
    assert run(*command(root, root / "encoded")) == 0
    return root / "encoded"


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_each_distinct_caption_has_the_embedding_that_the_encoder_gives(root, encoded):
    captions = sorted({c for record in manifest.records(root / "clips") for c in record.captions})
    embeddings, tokenizer = Embeddings(encoded), Tokenizer(root / "tokenizer.model")
    assert len(embeddings) == len(captions) + 1 and manifest.find_damaged_shards(encoded) == []
    graphdef, state = nnx.split(load_text_encoder_on_host(root / "text")[0])
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(state))
    ids, mask = tokenizer.encode(["", *captions], LENGTH)
    expected = np.asarray(jax.jit(lambda state, *args: nnx.merge(graphdef, state)(*args))(state, ids, mask))
    for row, caption in enumerate(["", *captions]):
        embedding = embeddings[caption]
        assert embedding.dtype == ml_dtypes.bfloat16 and embedding.shape == (mask[row].sum(), releases.TEXT.width)
        np.testing.assert_allclose(embedding.astype(np.float32), expected[row, mask[row]], rtol=2**-8, atol=1e-5)


def test_each_window_at_each_resolution_is_a_record_with_its_source(root, encoded):
    clips = {record.id: record for record in manifest.records(root / "clips")}
    records = list(manifest.records(encoded))
    assert len(records) == CLIPS * 2 * 2 and len({record.id for record in records}) == len(records)
    assert {(r.height, r.width) for r in records} == {(8, 8), (12, 12)}
    sizes = [len(shard.frames) for shard in manifest.load(encoded).shards]
    assert len(sizes) == SHARDS * 2 * 2 and max(sizes) <= -(-CLIPS // SHARDS)
    encode = jax.jit(load_vae(root / "vae")[0].encode)
    for record in records[:4]:
        window = dict(record.window)
        source = clips[window.pop("of")]
        assert record.id.startswith(f"{source.id}/{record.width}x{record.height}/")
        assert record.captions == source.captions
        pixels = decode_window(source, ClipShape(5, record.height, record.width, 8.0), Window(**window))
        for found, expected in zip(record.latent.arrays(), encode(to_float(pixels[None])), strict=True):
            assert found.dtype == ml_dtypes.bfloat16
            np.testing.assert_allclose(found.astype(np.float32), expected[0], rtol=2**-8, atol=1e-4)
    assert len({str(record.window) for record in records}) == len(records)


def test_an_identity_is_a_hash_that_copies_no_weights(tmp_path):
    class Net(nnx.Module):
        def __init__(self):
            self.few, self.one = nnx.Param(np.arange(3, dtype=ml_dtypes.bfloat16)), nnx.Param(np.float32(2))
            self.many = nnx.Param(np.ones((2**10, 2**11), np.float32))

    model = Net()
    describe(tmp_path, VAE_RUN)
    tracemalloc.start()
    identity = vae_identity(tmp_path, model, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    digest = hashlib.sha256()
    for name in ("few", "many", "one"):
        digest.update(name.encode() + np.asarray(getattr(model, name)[...]).tobytes())
    assert identity["weights"] == digest.hexdigest() and peak < 2**22


def test_records_are_yielded_in_order_and_few_are_buffered(root, monkeypatch):
    data, (vae, run, _) = open_dataset(root / "clips"), load_vae(root / "vae")
    buckets = BucketOptions(resolutions=(8, 12), aspects=(1.0,), frames=(5,))
    config = CropConfig(buckets, every_resolution=True)
    crops, _ = select_crops(data, run, config, root / "vae")
    encoder = LatentEncoder(vae, 8.0, "bfloat16")
    expected = list(encoder(data.records, crops))
    assert [record.id for record in expected] == [data.records[crop.clip].id + crop.suffix for crop in crops]
    monkeypatch.setattr(latents_module, "GROUP", 6)
    assert list(encoder(data.records, crops)) == expected
    finished = set()
    for batch in encoder._encode_batches(data.records, crops):
        finished |= set(batch.indices)
        first = next(n for n in range(len(crops) + 1) if n not in finished)
        assert len({crops[n].bucket for n in batch.indices}) == 1 and len([n for n in finished if n > first]) < 6
    assert finished == set(range(len(crops)))


def test_without_an_autoencoder_clips_are_copied(root, encoded, tmp_path):
    options = ("--text", root / "text", "--text-length", LENGTH, "--out", tmp_path / "copied")
    assert run("data", "encode", root / "clips", *options) == 0
    copied, source = contents(tmp_path / "copied"), contents(root / "clips")
    assert copied.items() >= {name: of for name, of in source.items() if name != "manifest.json"}.items()
    texts = {name: of for name, of in contents(encoded).items() if name.startswith("text")}
    assert texts and copied.items() >= texts.items()


def test_one_run_at_a_time_encodes_to_a_directory(root, tmp_path, capsys):
    with manifest.lock(tmp_path / "copied"):
        assert run("data", "encode", root / "clips", "--text", root / "text", "--out", tmp_path / "copied") == 2
        assert f"{tmp_path / 'copied'} is in use by " in capsys.readouterr().err
        assert os.listdir(tmp_path) == [".copied.lock"]


def test_latents_of_a_shard_that_was_exchanged_are_discarded(root, encoded, tmp_path, monkeypatch, capsys, caplog):
    """It is found when all is encoded: what the shard was exchanged for must not be taken up by the next command."""
    shutil.copytree(root / "clips", tmp_path / "clips")
    shard = min((tmp_path / "clips").glob("*.array_record"))
    original = shard.read_bytes()
    monkeypatch.setattr(shard_check, "AT_ONCE", -1)
    monkeypatch.setattr(shard_check, "RATE", 1.0)  # so that it is found at the end
    shard.write_bytes(b"?" + original[1:])
    options = ("data", "encode", tmp_path / "clips", "--out", tmp_path / "out", *command(root, tmp_path / "out")[5:])
    assert run(*options) == 2
    assert f"exchanged: {shard.name} has sha256" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
    shard.write_bytes(original)
    assert run(*options) == 0
    assert "unfinished shards made from other input are discarded" in caplog.text
    assert contents(tmp_path / "out") == contents(encoded)


def test_encoding_latents_preserves_embeddings_and_dropped_clips(root, encoded, tmp_path):
    options = ("--text", root / "text", "--text-length", LENGTH, "--out", tmp_path / "copied")
    assert run("data", "encode", root / "clips", *options) == 0
    described = replace(manifest.load(tmp_path / "copied"), left_out=(manifest.LeftOut("odd.mp4", "no caption"),))
    manifest.write_whole(tmp_path / "copied" / manifest.FILE, described.to_json())
    assert (
        run("data", "encode", tmp_path / "copied", "--vae", root / "vae", *CROP_OPTIONS, "--out", tmp_path / "latents")
        == 0
    )
    latents, expected = manifest.load(tmp_path / "latents"), manifest.load(encoded)
    assert latents.left_out == described.left_out and latents.content == "latent"
    assert (latents.texts, latents.info["text"]) == (expected.texts, expected.info["text"])
    assert latents.shards == expected.shards and manifest.find_damaged_shards(tmp_path / "latents") == []


def test_captions_are_read_from_the_new_shards(root, encoded, tmp_path, monkeypatch):
    data = dataclasses.replace(open_dataset(root / "clips"), records=())
    monkeypatch.setattr(encode, "open_dataset", lambda path: data)
    copied = encode.encode_dataset(root / "clips", tmp_path / "copied", text=TextSource(root / "text", length=LENGTH))
    assert copied.texts == manifest.load(encoded).texts


def test_copies_of_links_are_files(root, tmp_path):
    (tmp_path / "linked").mkdir()
    for path in (root / "clips").iterdir():
        (tmp_path / "linked" / path.name).symlink_to(os.path.relpath(path, tmp_path / "linked"))
    data = open_dataset(tmp_path / "linked")
    for name, make in encode._copy_shards(data, data.manifest.shards).items():
        make(tmp_path / name)
        assert not (tmp_path / name).is_symlink() and (tmp_path / name).samefile(root / "clips" / name)


def test_the_main_process_decides_which_files_are_missing(monkeypatch):
    """Each file is written once, whatever the file system shows to other processes."""
    existing, written = [], []

    def broadcast(values):
        existing.extend(() if existing else values)
        return list(existing)

    monkeypatch.setattr(work_sharing, "broadcast_from_main", broadcast)
    monkeypatch.setattr(work_sharing, "barrier", lambda name: None)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for process, visible in enumerate(({"b"}, {"a", "b", "c"})):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        work_sharing.share_work("abcde", visible.__contains__, written.append)
    assert sorted(written) == ["a", "c", "d", "e"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "pass an autoencoder, a text encoder or both"),
        (("--text", "text", "--crops", "2"), "pass an autoencoder, a text encoder or both"),
        (("--vae", "vae", "--every-resolution"), "needs several resolutions"),
        (("--text", "vae"), "a text encoder is needed"),
        (("--text", "text", "--tokenizer", "nowhere"), "No tokenizer model at"),
    ],
    ids=str,
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(root, options, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    assert run("data", "encode", root / "clips", "--out", tmp_path / "out", *options) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


@pytest.fixture
def finetuning(root, encoded):
    """Return a run whose frozen text encoder is the one of the embeddings."""
    cfg = from_config_dict(tiny.get_config("tune"))
    data = replace(cfg.data, path=str(encoded), text_length=LENGTH, height=12, width=12)
    paths = {"tokenizer": str(root / "tokenizer.model"), "vae": str(root / "vae"), "text_encoder": str(root / "text")}
    return replace(cfg, data=data, **paths)


def test_a_run_reads_embeddings_of_its_own_text_encoder_only(root, encoded, finetuning, tmp_path, caplog):
    def texts(run):
        return open_texts(run, open_tokenizer(run))

    assert isinstance(texts(finetuning), CachedText)
    assert isinstance(texts(replace(finetuning, text_encoder=None)), TokenizedText)
    held_out = replace(finetuning, data=replace(finetuning.data, eval_path=str(root / "clips")))
    assert texts(held_out).clean and "since" in caplog.text and f"{root / 'clips'} carry no embeddings" in caplog.text
    store(
        tmp_path / "text",
        ImportedTextEncoder(model=releases.TEXT),
        lambda: TextEncoder(releases.TEXT, rngs=nnx.Rngs(0)),
        2,
    )
    with pytest.raises(
        ValueError, match=r"the embeddings of .* were not made by the text encoder in .* \(weights differ"
    ):
        texts(replace(finetuning, text_encoder=str(tmp_path / "text")))
    with pytest.raises(ValueError, match=r"\(length differ\): encode the captions again"):
        texts(replace(finetuning, data=replace(finetuning.data, text_length=LENGTH + 1)))
    with pytest.raises(ValueError, match="is not of the run's shape"):
        texts(replace(finetuning, text=replace(finetuning.text, mlp_width=24)))


def run_processes(processes, *command):
    """Run a command in several processes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    start = [sys.executable, "-m", "videodit.cli.main", *map(str, command), "--coordinator", address]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    commands = [[*start, "--processes", str(processes), "--process", str(index)] for index in range(processes)]
    running = [subprocess.Popen(each, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env) for each in commands]
    try:
        return [(process.communicate(timeout=180)[1], process.returncode) for process in running]
    finally:
        for process in running:
            process.kill()


def test_several_processes_resume_and_write_the_same_bytes(root, encoded, tmp_path, monkeypatch):
    out, write = tmp_path / "out", manifest.write_whole

    def interrupt(path, text):
        if path.name.startswith("latents-00001"):
            raise KeyboardInterrupt
        write(path, text)

    monkeypatch.setattr(manifest, "write_whole", interrupt)
    assert run(*command(root, out)) == 130
    partial = manifest.partial_directory(out)
    assert not out.exists() and len(list(partial.glob("latents-*.array_record"))) == 2
    (partial / "latents-00001-of-00012.array_record").unlink()
    (partial / "latents-00002-of-00012.array_record.tmp").write_bytes(b"cut")
    before = (partial / "latents-00000-of-00012.array_record").stat().st_mtime_ns
    ends = run_processes(2, *command(root, out))
    assert [status for _, status in ends] == [0, 0], "\n".join(output for output, _ in ends)
    assert contents(out) == contents(encoded)
    assert (out / "latents-00000-of-00012.array_record").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
