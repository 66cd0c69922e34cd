"""`videodit import` and `videodit export`: every kind round-trips, and a mistake leaves nothing behind."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from tests.cli import releases
from tests.interop.test_safetensors import read_header, replace_header
from tests.interop.test_wan import ORIGINAL_BLOCK_NAMES, ORIGINAL_NAMES, list_names
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
SLOW = "wan2.2-vae", "wan2.1-flf2v"


def run(*args: object) -> int:
    return main([str(arg) for arg in args])


def write_copy(weights, folder, *, name=lambda name: name, shard_bytes=10**9):
    """Write the tensors under other names or in several files."""
    folder.mkdir(parents=True)
    outputs = {name(key): Output(x.dtype, x.shape, x.read) for key, x in weights.items()}
    return write(folder, "model", outputs, shard_bytes=shard_bytes)


def assert_equal_tensors(exported, weights):
    tensors = Weights(exported)
    assert set(tensors) == set(weights) - {"encoder.embed_tokens.weight"}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor.read(), weights[name].read())


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(*case, marks=[pytest.mark.slow] * (case[0] in SLOW)) for case in CASES.items()],
)
def test_export_inverts_import(golden, tmp_path, kind, name):
    case = golden(name)
    assert run("import", "--kind", kind, "--from", case.folder / "weights.safetensors", "--to", tmp_path / "ours") == 0
    assert run("export", "--checkpoint", tmp_path / "ours", "--to", tmp_path / "theirs") == 0
    assert_equal_tensors(tmp_path / "theirs", case.weights)
    fields = json.loads((tmp_path / "theirs" / "config.json").read_text())
    differ = {key for key, value in fields.items() if case.fields.get(key) != value}
    assert differ <= {"_class_name", "architectures", "rope_max_seq_len"}
    provenance = json.loads((tmp_path / "ours" / "provenance.json").read_text())
    assert provenance["kind"] == kind and provenance["licence"] == "Apache-2.0"
    assert re.fullmatch("[0-9a-f]{64}", provenance["sha256"]["weights.safetensors"])


def test_the_original_layout_and_a_complete_release(golden, tmp_path, capsys):
    """Names and configuration of the original release, sharded with an index; the other networks in sibling folders."""
    case = golden("wan_flf2v")
    names = [
        *list_names(ORIGINAL_NAMES),
        *(f"blocks.{i}.{name}" for i in range(2) for name in list_names(ORIGINAL_BLOCK_NAMES)),
    ]
    original = {wan.rename_original(name): name for name in names}
    release = tmp_path / "release"
    write_copy(case.weights, release / "transformer", name=original.get, shard_bytes=300_000)
    fields = {"dim": 96, "num_heads": 4, "ffn_dim": 160, "num_layers": 2, "in_dim": 36, "out_dim": 16, "freq_dim": 64}
    fields |= {"eps": 1e-6, "model_type": "flf2v"}
    (release / "transformer" / "config.json").write_text(json.dumps(fields))
    for part, name in {"vae": "wan_vae", "text_encoder": "umt5_encoder", "image_encoder": "clip_vision"}.items():
        write_copy(golden(name).weights, release / part)
        shutil.copy(golden(name).folder / "config.json", release / part)
    status = run("import", "--kind", "wan2.1-flf2v", "--from", release, "--to", tmp_path / "ours")
    message = capsys.readouterr().err
    # The original configuration lacks the sizes of text, images and positions: the release's are used.
    assert status == 2 and "net.2.weight is [96, 40], expected [96, 1280]" in " ".join(message.split())
    assert not (tmp_path / "ours").exists() and not list(tmp_path.glob("*.part"))
    shutil.copy(case.folder / "config.json", release / "transformer")
    assert run("import", "--kind", "wan2.1-flf2v", "--from", release, "--to", tmp_path / "ours") == 0
    for folder, name in {".": "wan_flf2v", "vae": "wan_vae", "text": "umt5_encoder", "image": "clip_vision"}.items():
        out = tmp_path / "out" / name
        assert run("export", "--checkpoint", tmp_path / "ours" / folder, "--to", out) == 0
        assert_equal_tensors(out, golden(name).weights)


def test_bfloat16_is_rounded_once(golden, tmp_path):
    case = golden("wan_t2v")
    source = case.folder / "weights.safetensors"
    assert run("import", "--kind", "wan2.1-t2v", "--from", source, "--to", tmp_path / "a", "--dtype", "bfloat16") == 0
    assert run("export", "--checkpoint", tmp_path / "a", "--to", tmp_path / "b", "--dtype", "bfloat16") == 0
    for name, tensor in Weights(tmp_path / "b").items():
        np.testing.assert_array_equal(tensor.read(), case.weights[name].read().astype(tensor.dtype))


def write_truncated(weights, folder):
    file = write_copy(weights, folder)[0]
    file.write_bytes(file.read_bytes()[:-100])


def write_without_query(weights, folder):
    write_copy({name: x for name, x in weights.items() if "blocks.1.attn1.to_q" not in name}, folder)


def write_float8(weights, folder):
    file = write_copy(weights, folder)[0]
    header = read_header(file)
    header["proj_out.bias"]["dtype"] = "F8_E4M3FN"
    replace_header(file, header)


@pytest.mark.parametrize(
    ("make", "kind", "sentence"),
    [
        (write_truncated, "wan2.1-t2v", "is truncated"),
        (write_without_query, "wan2.1-t2v", "2 missing: blocks.1.attn1.to_q.bias, blocks.1.attn1.to_q.weight"),
        (write_float8, "wan2.1-t2v", "proj_out.bias: dtype is 'F8_E4M3FN': supported types are F64, F32"),
        (write_copy, "wan2.1-i2v", "in_channels is 16 .* but the kind's transformer has more than out_channels"),
        (write_copy, "wan2.1-t2v-14b", "num_attention_heads is 4 .* but the kind's transformer has 40"),
        (write_copy, "wan2.1-t3v", "unknown kind 'wan2.1-t3v': did you mean wan2.1-t2v"),
        (write_copy, "umt5", "model_type is null .* but the kind's text encoder has 'umt5'"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(golden, tmp_path, capsys, make, kind, sentence):
    case = golden("wan_t2v")
    make(case.weights, tmp_path / "from")
    shutil.copy(case.folder / "config.json", tmp_path / "from")
    assert run("import", "--kind", kind, "--from", tmp_path / "from", "--to", tmp_path / "to") == 2
    message = " ".join(capsys.readouterr().err.split())
    assert re.search(sentence, message) and "Traceback" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from"]


def test_a_release_without_its_transformer_is_none(golden, tmp_path, capsys):
    write_copy(golden("wan_vae").weights, tmp_path / "from" / "vae")
    assert run("import", "--kind", "wan2.1-t2v", "--from", tmp_path / "from", "--to", tmp_path / "to") == 2
    assert "has no folder transformer, only vae" in " ".join(capsys.readouterr().err.split())


def test_existing_directories_are_not_overwritten(golden, tmp_path, capsys):
    (tmp_path / "file").touch()
    args = ("--from", golden("wan_t2v").folder / "weights.safetensors", "--to", tmp_path)
    assert run("import", "--kind", "wan2.1-t2v", *args) == 2
    assert "exists: --to must be a new directory" in " ".join(capsys.readouterr().err.split())


def test_a_network_of_another_kind_is_not_exported(golden, tmp_path, capsys):
    assert run("import", "--kind", "wan2.1-t2v", "--from", golden("wan_t2v").folder / "weights.safetensors",
               "--to", tmp_path / "ours") == 0  # fmt: skip
    config = tmp_path / "ours" / "config.json"
    tree = json.loads(config.read_text())
    tree["model"] |= {"qk_norm": "head", "pooled_text": True}
    config.write_text(json.dumps(tree))
    capsys.readouterr()
    assert run("export", "--checkpoint", tmp_path / "ours", "--to", tmp_path / "out") == 2
    message = " ".join(capsys.readouterr().err.split())
    assert (
        "cannot express the options of this network: qk_norm is 'head', there it is 'full'; pooled_text is True"
        in message
    )
    assert not (tmp_path / "out").exists()


def test_unused_tensors_are_dropped(golden, tmp_path):
    """Some image-to-video releases have norms of image queries, which no forward pass uses."""
    case = golden("wan_i2v")
    scale = case.weights["blocks.0.attn2.norm_added_k.weight"]
    unused = {f"blocks.{i}.attn2.norm_added_q.weight": scale for i in range(2)}
    write_copy(case.weights | unused, tmp_path / "from")
    shutil.copy(case.folder / "config.json", tmp_path / "from")
    assert run("import", "--kind", "wan2.1-i2v", "--from", tmp_path / "from", "--to", tmp_path / "ours") == 0
    assert run("export", "--checkpoint", tmp_path / "ours", "--to", tmp_path / "theirs") == 0
    assert_equal_tensors(tmp_path / "theirs", case.weights)


@pytest.mark.slow
def test_an_autoencoder_with_two_widths_round_trips(tmp_path):
    cfg = dataclasses.replace(releases.VAE, decoder_channels=tuple(2 * width for width in releases.VAE.channels))
    releases.write(tmp_path / "from", {"vae": cfg})
    assert run("import", "--kind", "wan2.1-vae", "--from", tmp_path / "from", "--to", tmp_path / "ours") == 0
    assert run("export", "--checkpoint", tmp_path / "ours", "--to", tmp_path / "theirs") == 0
    fields = [json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("from/vae", "theirs")]
    assert fields[0] == fields[1] and fields[0]["decoder_base_dim"] == 2 * fields[0]["base_dim"]
    assert_equal_tensors(tmp_path / "theirs", Weights(tmp_path / "from" / "vae"))


def test_mismatched_and_missing_parts_are_reported(tmp_path, capsys):
    parts = {"transformer": releases.DIT, "vae": dataclasses.replace(releases.VAE, latent_channels=8)}
    release = releases.write(tmp_path / "from", parts | {"text_encoder": releases.TEXT})
    command = ("import", "--kind", "wan2.1-t2v", "--from", release, "--to", tmp_path / "ours")
    assert run(*command) == 2
    assert "generates latents of 4 channels" in " ".join(capsys.readouterr().err.split())
    shutil.rmtree(release / "vae")
    (release / "tokenizer" / "spiece.model").unlink()
    assert run(*command) == 0
    message = " ".join(capsys.readouterr().err.split())
    assert "without vae and tokenizer (spiece.model, pass it with --tokenizer)" in message


def test_a_text_encoder_comes_with_its_tokenizer(tmp_path):
    release = releases.write(tmp_path / "from", {"text_encoder": releases.TEXT})
    command = ("import", "--kind", "umt5", "--from", release / "text_encoder", "--to", tmp_path / "ours")
    assert run(*command) == 0
    tokenizer = (release / "tokenizer" / "spiece.model").read_bytes()
    assert (tmp_path / "ours" / "tokenizer.model").read_bytes() == tokenizer
