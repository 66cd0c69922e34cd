"""`videodit import` and `videodit export`: there and back for every kind, and nothing written on any mistake."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from tests.cli import releases
from tests.interop.test_safetensors import header_of, patched
from tests.interop.test_wan import ORIGINAL, ORIGINAL_BLOCK, spelt
from videodit.cli import main
from videodit.interop import wan
from videodit.interop.safetensors import Output, Weights, write

CASES = {
    "wan2.1-t2v": "wan_t2v",
    "wan2.1-i2v": "wan_i2v",
    "wan2.1-flf2v": "wan_flf2v",
    "wan2.2-ti2v": "wan22_ti2v",
    "wan2.1-vae": "wan_vae",
    "wan2.2-vae": "wan22_vae",
    "umt5": "umt5_encoder",
    "t5-v1.1": "t5_encoder",
    "clip": "clip_vision",
}


def run(*args: object) -> int:
    return main([str(arg) for arg in args])


def copied(weights, folder, *, name=lambda name: name, shard_bytes=10**9):
    """The tensors again, under other names or in several files."""
    folder.mkdir(parents=True)
    outputs = {name(key): Output(x.dtype, x.shape, x.read) for key, x in weights.items()}
    return write(folder, "model", outputs, shard_bytes=shard_bytes)


def same(exported, weights):
    found = Weights(exported)
    assert set(found) == set(weights) - {"encoder.embed_tokens.weight"}
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor.read(), weights[name].read())


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(*case, marks=[pytest.mark.slow] * (case[0] == "wan2.2-vae")) for case in CASES.items()],
)
def test_there_and_back_is_the_same_file(golden, tmp_path, kind, name):
    case = golden(name)
    assert run("import", "--kind", kind, "--from", case.folder / "weights.safetensors", "--to", tmp_path / "ours") == 0
    assert run("export", "--checkpoint", tmp_path / "ours", "--to", tmp_path / "theirs") == 0
    same(tmp_path / "theirs", case.weights)
    told = json.loads((tmp_path / "theirs" / "config.json").read_text())
    differ = {key for key, value in told.items() if case.facts.get(key) != value}
    assert differ <= {"_class_name", "architectures", "rope_max_seq_len"}
    facts = json.loads((tmp_path / "ours" / "provenance.json").read_text())
    assert facts["kind"] == kind and facts["licence"] == "Apache-2.0"
    assert re.fullmatch("[0-9a-f]{64}", facts["sha256"]["weights.safetensors"])


def test_the_original_layout_in_shards_and_a_whole_release(golden, tmp_path, capsys):
    """Names and configuration of the release itself, split behind an index; the other networks in folders beside."""
    case = golden("wan_flf2v")
    names = [*spelt(ORIGINAL), *(f"blocks.{i}.{name}" for i in range(2) for name in spelt(ORIGINAL_BLOCK))]
    original = {wan.renamed(name): name for name in names}
    release = tmp_path / "release"
    copied(case.weights, release / "transformer", name=original.get, shard_bytes=300_000)
    facts = {"dim": 96, "num_heads": 4, "ffn_dim": 160, "num_layers": 2, "in_dim": 36, "out_dim": 16, "freq_dim": 64}
    told = facts | {"eps": 1e-6, "model_type": "flf2v"}
    (release / "transformer" / "config.json").write_text(json.dumps(told))
    for part, name in {"vae": "wan_vae", "text_encoder": "umt5_encoder", "image_encoder": "clip_vision"}.items():
        copied(golden(name).weights, release / part)
        shutil.copy(golden(name).folder / "config.json", release / part)
    status = run("import", "--kind", "wan2.1-flf2v", "--from", release, "--to", tmp_path / "ours")
    said = capsys.readouterr().err
    # The original configuration does not say the sizes of text, images and places: those of the release are taken.
    assert status == 2 and "net.2.weight is [96, 40], expected [96, 1280]" in " ".join(said.split())
    assert not (tmp_path / "ours").exists() and not list(tmp_path.glob("*.part"))
    shutil.copy(case.folder / "config.json", release / "transformer")
    assert run("import", "--kind", "wan2.1-flf2v", "--from", release, "--to", tmp_path / "ours") == 0
    for place, name in {".": "wan_flf2v", "vae": "wan_vae", "text": "umt5_encoder", "image": "clip_vision"}.items():
        out = tmp_path / "out" / name
        assert run("export", "--checkpoint", tmp_path / "ours" / place, "--to", out) == 0
        same(out, golden(name).weights)


def test_bfloat16_is_rounded_once(golden, tmp_path):
    case = golden("wan_t2v")
    source = case.folder / "weights.safetensors"
    assert run("import", "--kind", "wan2.1-t2v", "--from", source, "--to", tmp_path / "a", "--dtype", "bfloat16") == 0
    assert run("export", "--checkpoint", tmp_path / "a", "--to", tmp_path / "b", "--dtype", "bfloat16") == 0
    for name, tensor in Weights(tmp_path / "b").items():
        np.testing.assert_array_equal(tensor.read(), case.weights[name].read().astype(tensor.dtype))


def cut(weights, folder):
    file = copied(weights, folder)[0]
    file.write_bytes(file.read_bytes()[:-100])


def lacking(weights, folder):
    copied({name: x for name, x in weights.items() if "blocks.1.attn1.to_q" not in name}, folder)


def eight_bits(weights, folder):
    file = copied(weights, folder)[0]
    header = header_of(file)
    header["proj_out.bias"]["dtype"] = "F8_E4M3FN"
    patched(file, header)


@pytest.mark.parametrize(
    ("make", "kind", "sentence"),
    [
        (cut, "wan2.1-t2v", "is cut off"),
        (lacking, "wan2.1-t2v", "2 expected and not there: blocks.1.attn1.to_q.bias, blocks.1.attn1.to_q.weight"),
        (eight_bits, "wan2.1-t2v", "proj_out.bias of .* has the type F8_E4M3FN: what can be read is F64, F32"),
        (copied, "wan2.1-i2v", "in_channels is 16 .* but the kind's transformer has more than out_channels"),
        (copied, "wan2.1-t2v-14b", "num_attention_heads is 4 .* but the kind's transformer has 40"),
        (copied, "wan2.1-t3v", "unknown kind 'wan2.1-t3v': did you mean wan2.1-t2v"),
        (copied, "umt5", "model_type is None .* but the kind's text encoder has 'umt5'"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(golden, tmp_path, capsys, make, kind, sentence):
    case = golden("wan_t2v")
    make(case.weights, tmp_path / "from")
    shutil.copy(case.folder / "config.json", tmp_path / "from")
    assert run("import", "--kind", kind, "--from", tmp_path / "from", "--to", tmp_path / "to") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(sentence, said) and "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from"]


def test_a_release_without_its_transformer_is_none(golden, tmp_path, capsys):
    copied(golden("wan_vae").weights, tmp_path / "from" / "vae")
    assert run("import", "--kind", "wan2.1-t2v", "--from", tmp_path / "from", "--to", tmp_path / "to") == 2
    assert "has no folder transformer, only vae" in " ".join(capsys.readouterr().err.split())


def test_what_is_there_is_not_written_over(golden, tmp_path, capsys):
    (tmp_path / "file").touch()
    args = ("--from", golden("wan_t2v").folder / "weights.safetensors", "--to", tmp_path)
    assert run("import", "--kind", "wan2.1-t2v", *args) == 2
    assert "exists: --to is a directory to make" in " ".join(capsys.readouterr().err.split())


def test_a_network_of_another_kind_is_not_exported(golden, tmp_path, capsys):
    assert run("import", "--kind", "wan2.1-t2v", "--from", golden("wan_t2v").folder / "weights.safetensors",
               "--to", tmp_path / "ours") == 0  # fmt: skip
    config = tmp_path / "ours" / "config.json"
    tree = json.loads(config.read_text())
    tree["model"] |= {"qk_norm": "head", "pooled_text": True}
    config.write_text(json.dumps(tree))
    capsys.readouterr()
    assert run("export", "--checkpoint", tmp_path / "ours", "--to", tmp_path / "out") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "no words for what this network is: qk_norm is 'head', there it is 'full'; pooled_text is True" in said
    assert not (tmp_path / "out").exists()


def test_what_no_forward_pass_has_is_left_out(golden, tmp_path):
    """Some releases of the transformers that see images hold norms of queries for them, which are never used."""
    case = golden("wan_i2v")
    scale = case.weights["blocks.0.attn2.norm_added_k.weight"]
    unused = {f"blocks.{i}.attn2.norm_added_q.weight": scale for i in range(2)}
    copied(case.weights | unused, tmp_path / "from")
    shutil.copy(case.folder / "config.json", tmp_path / "from")
    assert run("import", "--kind", "wan2.1-i2v", "--from", tmp_path / "from", "--to", tmp_path / "ours") == 0
    assert run("export", "--checkpoint", tmp_path / "ours", "--to", tmp_path / "theirs") == 0
    same(tmp_path / "theirs", case.weights)


def test_an_autoencoder_of_two_widths_comes_out_as_it_went_in(tmp_path):
    cfg = dataclasses.replace(releases.VAE, decoder_channels=tuple(2 * width for width in releases.VAE.channels))
    releases.write(tmp_path / "from", {"vae": cfg})
    assert run("import", "--kind", "wan2.1-vae", "--from", tmp_path / "from", "--to", tmp_path / "ours") == 0
    assert run("export", "--checkpoint", tmp_path / "ours", "--to", tmp_path / "theirs") == 0
    told = [json.loads((tmp_path / place / "config.json").read_text()) for place in ("from/vae", "theirs")]
    assert told[0] == told[1] and told[0]["decoder_base_dim"] == 2 * told[0]["base_dim"]
    same(tmp_path / "theirs", Weights(tmp_path / "from" / "vae"))


def test_parts_that_do_not_go_together_and_what_is_missing_are_told(tmp_path, capsys):
    parts = {"transformer": releases.DIT, "vae": dataclasses.replace(releases.VAE, latent_channels=8)}
    release = releases.write(tmp_path / "from", parts | {"text_encoder": releases.TEXT})
    asked = ("import", "--kind", "wan2.1-t2v", "--from", release, "--to", tmp_path / "ours")
    assert run(*asked) == 2
    assert "makes latents of 4 channels" in " ".join(capsys.readouterr().err.split())
    shutil.rmtree(release / "vae")
    (release / "tokenizer" / "spiece.model").unlink()
    assert run(*asked) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "without vae and tokenizer (spiece.model, which --tokenizer names)" in said


def test_a_text_encoder_comes_with_its_tokenizer(tmp_path):
    release = releases.write(tmp_path / "from", {"text_encoder": releases.TEXT})
    asked = ("import", "--kind", "umt5", "--from", release / "text_encoder", "--to", tmp_path / "ours")
    assert run(*asked) == 0
    there = (release / "tokenizer" / "spiece.model").read_bytes()
    assert (tmp_path / "ours" / "tokenizer.model").read_bytes() == there
