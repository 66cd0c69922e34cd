"""Data sets coded once: by one process or several, interrupted or not, what comes out is the same."""

import dataclasses
import hashlib
import os
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
from videodit_data.storage import manifest
from videodit_data.storage.embeddings import Embeddings
from videodit_data.tokenizer import Tokenizer
from videodit_data.toyworld import build

from tests.cli import releases, tiny
from tests.cli.test_cli import run
from tests.train.test_tasks import VAE_RUN
from tests.train.toy import built
from videodit.checkpoint import latent_stats
from videodit.checkpoint.checkpoints import save_params
from videodit.checkpoint.restore import load_text_encoder_on_host, load_vae
from videodit.checkpoint.workdir import describe
from videodit.config.io import from_config_dict
from videodit.config.run import ImportedTextEncoder
from videodit.inference.encode import dataset as encode
from videodit.inference.encode import work_sharing
from videodit.inference.encode.embeddings import TextSource
from videodit.inference.encode.latents import LatentEncoder, Shapes, takes
from videodit.inference.tokenizer import open_tokenizer
from videodit.models.pixels import to_float
from videodit.models.text import TextEncoder
from videodit.models.vae import VAE
from videodit.nn.state import split_model
from videodit.train.data import open_texts

ROOT = Path(__file__).parents[2]
CLIPS, SHARDS, LENGTH = 7, 3, 12


def store(workdir, held, make, seed):
    """A network with random weights in a directory of its own."""
    workdir.mkdir()
    save_params(workdir / "checkpoints", *split_model(built(make, seed))[1:])
    describe(workdir, held)
    return workdir


def models(root):
    """An autoencoder, a text encoder, and a tokenizer above it."""
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
    models(root)
    return root


ASKED = ("--resolutions", "8,12", "--aspects", "1:1", "--frames", "5", "--every-resolution", "--crops", "2")


def command(root, out, *more):
    given = ("--vae", root / "vae", "--text", root / "text", "--text-length", LENGTH)
    return ("data", "encode", root / "clips", "--out", out, *given, *ASKED, *more)


@pytest.fixture(scope="module")
def whole(root):
    assert run(*command(root, root / "whole")) == 0
    return root / "whole"


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_each_distinct_caption_has_the_embedding_that_the_encoder_gives(root, whole):
    captions = sorted({c for record in manifest.records(root / "clips") for c in record.captions})
    stored, tokenizer = Embeddings(whole), Tokenizer(root / "tokenizer.model")
    assert len(stored) == len(captions) + 1 and manifest.damaged(whole) == []
    graphdef, state = nnx.split(load_text_encoder_on_host(root / "text")[0])
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(state))
    ids, mask = tokenizer.encode(["", *captions], LENGTH)
    expected = np.asarray(jax.jit(lambda state, *told: nnx.merge(graphdef, state)(*told))(state, ids, mask))
    for row, caption in enumerate(["", *captions]):
        found = stored[caption]
        assert found.dtype == ml_dtypes.bfloat16 and found.shape == (mask[row].sum(), releases.TEXT.width)
        np.testing.assert_allclose(found.astype(np.float32), expected[row, mask[row]], rtol=2**-8, atol=1e-5)


def test_each_window_of_each_side_is_a_clip_that_says_where_it_is_from(root, whole):
    clips = {record.id: record for record in manifest.records(root / "clips")}
    coded = list(manifest.records(whole))
    assert len(coded) == CLIPS * 2 * 2 and len({record.id for record in coded}) == len(coded)
    assert {(r.height, r.width) for r in coded} == {(8, 8), (12, 12)}
    sizes = [len(shard.frames) for shard in manifest.load(whole).shards]
    assert len(sizes) == SHARDS * 2 * 2 and max(sizes) <= -(-CLIPS // SHARDS)
    encode = jax.jit(load_vae(root / "vae")[0].encode)
    for record in coded[:4]:
        told = dict(record.window)
        source = clips[told.pop("of")]
        assert record.id.startswith(f"{source.id}/{record.width}x{record.height}/")
        assert record.captions == source.captions
        pixels = decode_window(source, ClipShape(5, record.height, record.width, 8.0), Window(**told))
        for found, expected in zip(record.latent.arrays(), encode(to_float(pixels[None])), strict=True):
            assert found.dtype == ml_dtypes.bfloat16
            np.testing.assert_allclose(found.astype(np.float32), expected[0], rtol=2**-8, atol=1e-4)
    assert len({str(record.window) for record in coded}) == len(coded)


def test_an_identity_is_a_hash_of_bytes_none_of_which_are_copied():
    class Net(nnx.Module):
        def __init__(self):
            self.few, self.one = nnx.Param(np.arange(3, dtype=ml_dtypes.bfloat16)), nnx.Param(np.float32(2))
            self.many = nnx.Param(np.ones((2**10, 2**11), np.float32))

    model = Net()
    tracemalloc.start()
    told = identity_of(model, VAE_RUN, 3)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    digest = hashlib.sha256()
    for name in ("few", "many", "one"):
        digest.update(name.encode() + np.asarray(getattr(model, name)[...]).tobytes())
    assert told["weights"] == digest.hexdigest() and most < 2**22


def test_few_takes_are_held_until_they_can_be_handed_on_in_order(root, monkeypatch):
    data, (vae, run, _) = open_dataset(root / "clips"), load_vae(root / "vae")
    shapes = Shapes({"resolutions": (8, 12), "aspects": (1.0,), "frames": (5,)}, every_resolution=True)
    some, _ = takes(data, run, shapes, root / "vae")
    coder = LatentEncoder(vae, 8.0, "bfloat16")
    whole = list(coder(data.records, some))
    assert [record.id for record in whole] == [data.records[take.number].id + take.name for take in some]
    monkeypatch.setattr(coding, "RUN", 6)
    assert list(coder(data.records, some)) == whole
    held = set()
    for numbers, _, _ in coder._one_behind(data.records, some):
        held |= set(numbers)
        first = next(n for n in range(len(some) + 1) if n not in held)
        assert len({some[n].shape for n in numbers}) == 1 and len([n for n in held if n > first]) < 6
    assert held == set(range(len(some)))


def test_clips_that_stay_as_they_are_are_the_same_files(root, whole, tmp_path):
    asked = ("--text", root / "text", "--text-length", LENGTH, "--out", tmp_path / "kept")
    assert run("data", "encode", root / "clips", *asked) == 0
    kept, source = contents(tmp_path / "kept"), contents(root / "clips")
    assert kept.items() >= {name: of for name, of in source.items() if name != "manifest.json"}.items()
    texts = {name: of for name, of in contents(whole).items() if name.startswith("text")}
    assert texts and kept.items() >= texts.items()


def test_a_set_of_latents_carries_on_embeddings_and_what_was_left_out(root, whole, tmp_path):
    asked = ("--text", root / "text", "--text-length", LENGTH, "--out", tmp_path / "kept")
    assert run("data", "encode", root / "clips", *asked) == 0
    described = replace(manifest.load(tmp_path / "kept"), left_out=(manifest.LeftOut("odd.mp4", "no caption"),))
    manifest.write_whole(tmp_path / "kept" / manifest.FILE, described.to_json())
    assert run("data", "encode", tmp_path / "kept", "--vae", root / "vae", *ASKED, "--out", tmp_path / "coded") == 0
    coded, expected = manifest.load(tmp_path / "coded"), manifest.load(whole)
    assert coded.left_out == described.left_out and coded.content == "latent"
    assert (coded.texts, coded.info["text"]) == (expected.texts, expected.info["text"])
    assert coded.shards == expected.shards and manifest.damaged(tmp_path / "coded") == []


def test_captions_are_read_from_the_shards_that_are_made(root, whole, tmp_path, monkeypatch):
    data = dataclasses.replace(open_dataset(root / "clips"), records=())
    monkeypatch.setattr(encode, "open_dataset", lambda path: data)
    made = encode.encode_dataset(root / "clips", tmp_path / "kept", text=TextSource(root / "text", length=LENGTH))
    assert made.texts == manifest.load(whole).texts


def test_clips_that_are_links_stay_as_files(root, tmp_path):
    (tmp_path / "linked").mkdir()
    for path in (root / "clips").iterdir():
        (tmp_path / "linked" / path.name).symlink_to(os.path.relpath(path, tmp_path / "linked"))
    data = open_dataset(tmp_path / "linked")
    for name, make in encode._kept(data, data.manifest.shards).items():
        make(tmp_path / name)
        assert not (tmp_path / name).is_symlink() and (tmp_path / name).samefile(root / "clips" / name)


def test_shares_are_of_what_the_first_process_sees(monkeypatch):
    """Whatever another one sees of a disc: each name is made once."""
    said, made = [], []

    def first_says(values):
        said.extend(() if said else values)
        return list(said)

    monkeypatch.setattr(shared, "broadcast_from_main", first_says, raising=False)
    monkeypatch.setattr(shared, "barrier", lambda what: None)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for process, seen in enumerate(({"b"}, {"a", "b", "c"})):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        work_sharing.each_its_share("abcde", seen.__contains__, made.append)
    assert sorted(made) == ["a", "c", "d", "e"]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ((), "name an autoencoder, a text encoder or both"),
        (("--text", "text", "--crops", "2"), "name an autoencoder, a text encoder or both"),
        (("--vae", "vae", "--crops", "0"), "0 crops of a clip"),
        (("--vae", "vae", "--every-resolution"), "name several resolutions"),
        (("--text", "vae"), "a text encoder is wanted"),
        (("--text", "text", "--tokenizer", "nowhere"), "No tokenizer model at"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for_is_said_and_nothing_is_written(root, asked, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    assert run("data", "encode", root / "clips", "--out", tmp_path / "out", *asked) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


@pytest.fixture
def finetuning(root, whole):
    """A run that trains under the text encoder which the embeddings are of."""
    cfg = from_config_dict(tiny.get_config("tune"))
    data = replace(cfg.data, path=str(whole), text_length=LENGTH, height=12, width=12)
    paths = {"tokenizer": str(root / "tokenizer.model"), "vae": str(root / "vae"), "text_encoder": str(root / "text")}
    return replace(cfg, data=data, **paths)


def test_a_run_takes_embeddings_of_its_own_text_encoder_and_no_other(root, whole, finetuning, tmp_path, caplog):
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


def together(processes, *asked):
    """The same command in several processes, each with as many devices as this one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    start = [sys.executable, "-m", "videodit.cli.main", *map(str, asked), "--coordinator", address]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    each = [[*start, "--processes", str(processes), "--process", str(index)] for index in range(processes)]
    begun = [subprocess.Popen(one, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env) for one in each]
    try:
        return [(process.communicate(timeout=180)[1], process.returncode) for process in begun]
    finally:
        for process in begun:
            process.kill()


def test_several_processes_go_on_with_what_one_left_and_make_the_same_bytes(root, whole, tmp_path, monkeypatch):
    out, write = tmp_path / "out", manifest.write_whole

    def dying(path, text):
        if path.name.startswith("latents-00001"):
            raise KeyboardInterrupt
        write(path, text)

    monkeypatch.setattr(manifest, "write_whole", dying)
    assert run(*command(root, out)) == 130
    partial = manifest.partial_directory(out)
    assert not out.exists() and len(list(partial.glob("latents-*.array_record"))) == 2
    (partial / "latents-00001-of-00012.array_record").unlink()
    (partial / "latents-00002-of-00012.array_record.tmp").write_bytes(b"cut")
    before = (partial / "latents-00000-of-00012.array_record").stat().st_mtime_ns
    ends = together(2, *command(root, out))
    assert [status for _, status in ends] == [0, 0], "\n".join(said for said, _ in ends)
    assert contents(out) == contents(whole)
    assert (out / "latents-00000-of-00012.array_record").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
