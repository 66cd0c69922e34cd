"""JSON files of every kind, damaged at random: each is read as what it should be, or refused in one sentence."""

import dataclasses
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.config.test_io import DIT_RUN, VAE_RUN
from videodit.checkpoint import latent_stats
from videodit.checkpoint.workdir import read_config
from videodit.config.io import to_json
from videodit.config.json_file import MAX_BYTES, MAX_DEPTH, parse_json, parse_object, read_document, read_json
from videodit.config.run import ImportedTextEncoder, ImportedVisionEncoder
from videodit.config.schema import from_tree, parse_as, to_tree
from videodit.inference.encode.dataset import ShardDescription
from videodit.interop import clip, schedulers, text, wan, wan_vae
from videodit.interop.import_release import ModelIndex
from videodit.interop.safetensors import Weights
from videodit.models.vision import VisionConfig
from videodit.nn.lora import LoRAConfig
from videodit.plan.plan_report import Plan

KEYLESS = f"nested deeper than {MAX_DEPTH} levels", "the rest belongs to none"  # faults that have no key
CASES = 80  # of each kind of file

ODD = (
    *(None, True, False, 0, -1, 1, 3, 10**12, 10**300, -(10**18), 0.5, 1e300, float("nan"), float("inf")),
    *("", "x", "0", "a\0b", "\ud800", "\x1b[31mred", "\u202etxt", "é" * 300, ":", "..:x", "/", "1" * 5000),
    *([], {}, [1], [0, 0, 0], [None], ["x"] * 200, [[[]]], {"a": 1}, {"": {}}, {"depth": 2}),
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file: a whole one, and how it is read."""

    name: str
    tree: dict[str, Any]
    read: Callable[[Path], Any]


def kind_of_weights() -> Kind:
    """Return the header of a file of weights, which is read from before tensors of 44 bytes."""

    def read(path: Path) -> dict[str, Any]:
        header = path.read_bytes()
        file = path.with_suffix(".safetensors")
        file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(44))
        return dict(Weights(file))

    entries = {"a": ("F32", [2, 3], [0, 24]), "b": ("BF16", [4], [24, 32]), "c": ("F32", [3, 1, 1], [32, 44])}
    tree = {name: dict(zip(("dtype", "shape", "data_offsets"), entry, strict=True)) for name, entry in entries.items()}
    return Kind("header.json", tree, read)


def kind_of_config(config: Any) -> Kind:
    return Kind("config.json", json.loads(to_json(config)), lambda path: read_config(path.parent))


def kind_of_network(module: Any, config: Any) -> Kind:
    """Return the `config.json` of somebody else's network."""
    stats = [np.ones(config.latent_channels)] * 2 if module is wan_vae else []
    return Kind(
        "config.json",
        module.export_config(config, *stats),
        lambda path: read_document(path, lambda data: module.parse_config(parse_object(data))),
    )


ORIGINAL_WAN = {
    **{"num_heads": 2, "dim": 24, "ffn_dim": 32, "num_layers": 2, "in_dim": 16, "out_dim": 16, "freq_dim": 256},
    **{"eps": 1e-6, "model_type": "i2v", "text_dim": 16, "patch_size": [1, 2, 2], "cross_attn_norm": True},
}
UNIPC = {"_class_name": schedulers.UNIPC, "flow_shift": 3.0, "solver_order": 2, "solver_type": "bh2"}
SHARD = {"name": "clips-0", "sha256": "0" * 64, "bytes": 9, "frames": [5], "fps": [8.0], "heights": [4], "widths": [4]}
NOTE = {
    "described": {"shard": SHARD, "origins": [{"source": "s", "licence": "l", "clips": 1}], "content": "latent"},
    "captions": ["a red circle"],
}
PLAN = {
    **{"config": "c", "what": "train", "topology": "v5e:2x2", "chips": 4, "mesh": {"data": 4}, "batch": 8},
    **{"tokens_per_clip": 64, "micro_batches": 1, "remat": "none", "fits": True, "hbm_bytes": 16, "mfu": None},
    **{"bytes_per_chip": {"total": 5}, "compile_seconds": 0.5, "flops_per_step": {"model": None, "hardware": 1.5}},
    **{"collective_bytes_per_step": {"all-reduce": 7}, "seconds": {"matmul": 0.1}},
}
WAN = dataclasses.replace(DIT_RUN.model, attend_padding=True, qk_norm="full", rope_split=None)
KINDS = {
    "vae": kind_of_config(VAE_RUN),
    "dit": kind_of_config(dataclasses.replace(DIT_RUN, lora=LoRAConfig())),
    "text": kind_of_config(ImportedTextEncoder(model=DIT_RUN.text)),
    "vision": kind_of_config(ImportedVisionEncoder(model=VisionConfig())),
    "latents": Kind(
        latent_stats.FILE,
        {"step": 3, "mean": [0.5, -0.5], "std": [1.0, 2.0]},
        lambda path: (latent_stats.measured_step(path.parent), latent_stats.read(path.parent)),
    ),
    "note": Kind("note.json", NOTE, lambda path: read_json(path, ShardDescription)),
    "plan": Kind("plan.json", PLAN, lambda path: read_json(path, Plan)),
    "header": kind_of_weights(),
    "wan": kind_of_network(wan, WAN),
    "original wan": Kind(
        "config.json",
        ORIGINAL_WAN,
        lambda path: read_document(
            path, lambda data: wan.parse_config(wan.convert_original_fields(parse_object(data), attends_image=True))
        ),
    ),
    "t5": kind_of_network(text, DIT_RUN.text),
    "clip": kind_of_network(clip, VisionConfig()),
    "wan vae": kind_of_network(
        wan_vae,
        wan_vae.parse_config(
            {
                **wan_vae.export_config(VAE_RUN.model, np.ones(16), np.ones(16)),
                "dim_mult": [1, 2],
                "temperal_downsample": [True],
            }
        ),
    ),
    "scheduler": Kind(
        "scheduler_config.json",
        UNIPC,
        lambda path: read_document(path, lambda data: schedulers.parse_sampler(parse_object(data), 4)),
    ),
    "model index": Kind(
        "model_index.json",
        {"boundary_ratio": 0.5},
        lambda path: read_json(path, ModelIndex, ignore_unknown=True),
    ),
}


def keys_of(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values of a document."""
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [entry for key, child in children for entry in ((*path, key), *keys_of(child, (*path, key)))]


def damage(rng: random.Random, tree: dict[str, Any]) -> tuple[bytes, tuple[Any, ...]]:
    """Return a document with one fault, and the path of the value that it is in; () for a fault of the whole."""
    tree = json.loads(json.dumps(tree))
    path = rng.choice(keys_of(tree))
    group = tree
    for key in path[:-1]:
        group = group[key]
    key, odd = path[-1], rng.choice(ODD)
    match rng.randrange(9):
        case 0 | 1 | 2 | 3:
            group[key] = odd
        case 4:
            del group[key]
        case 5 if isinstance(group, dict):
            group[rng.choice((key + "x", key[:-1], "\x1b]0;x\a", "é" * 200, "\ud800"))] = group.pop(key)
        case 6 if isinstance(group, dict):
            twice = json.dumps(group)
            twice = f'{{"{key}": 1, {twice[1:]}'
            return json.dumps(tree).replace(json.dumps(group), twice, 1).encode(), path
        case 7:
            deep = rng.random() < 0.3
            for _ in range(20_000 if deep else rng.choice((1, MAX_DEPTH))):
                group[key] = [group[key]]
            return _dump(tree), () if deep else path
        case _:
            whole = json.dumps(tree).encode()
            at = rng.randrange(len(whole))
            return rng.choice((whole[:at], whole[:at] + b"\xff" + whole[at:], b"", b"\0" * 9, _dump(odd))), ()
    return _dump(tree), path


def _dump(tree: Any) -> bytes:
    """Return a document as JSON, however deep it is."""
    try:
        return json.dumps(tree).encode()
    except RecursionError:
        return b'{"a":' * 20_000 + b"1" + b"}" * 20_000


def assert_is_a_sentence(message: str, path: Path) -> None:
    assert str(path.with_suffix("")) in message, "the file is named"
    assert message.isprintable() and len(message) < 700


@pytest.mark.parametrize("name", KINDS)
def test_a_whole_file_is_read(tmp_path, name):
    path = tmp_path / KINDS[name].name
    path.write_text(json.dumps(KINDS[name].tree))
    KINDS[name].read(path)


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_read_or_refused_in_a_sentence(tmp_path, name):
    kind, rng, refused = KINDS[name], random.Random(name), 0
    path = tmp_path / kind.name
    for _ in range(CASES):
        data, fault = damage(rng, kind.tree)
        path.write_bytes(data)
        try:
            value = kind.read(path)
        except ValueError as error:
            refused += 1
            assert_is_a_sentence(str(error), path)
            keys = [key for key in fault if isinstance(key, str)][-2:]
            assert not keys or any(key in str(error) for key in (*keys, *KEYLESS)), (keys, data[:500])
        else:
            if dataclasses.is_dataclass(value):
                assert from_tree(type(value), to_tree(value)) == value, "what is read has the right types"
    assert refused > CASES / 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "LatentStats must be a JSON object, not []"),
        ("5", "LatentStats must be a JSON object, not 5"),
        ("{", "it is not JSON: "),
        ('{"step": 3, "step": 4}', "the key 'step' is there twice"),
        ("null", "LatentStats must be a JSON object, not null"),
        ('{"step": true, "mean": [0], "std": [1]}', "step must be an int, not true"),
        ('{"step": {"a": [null, false]}, "mean": [0], "std": [1]}', "step must be an int, not {'a': [null, false]}"),
        ('{"step": 3, "mean": [NaN], "std": [1]}', "mean[0] must be a finite number, not nan"),
        ('{"step": 3, "mean": [1e999], "std": [1]}', "mean[0] must be a finite number, not inf"),
        ('{"step": 3, "mean": ["0"], "std": [1]}', "mean[0] must be a float, not '0'"),
        ('{"step": 3, "mean": [0], "std": [0]}', "std is (0.0,): each of its numbers must be from 1e-30 to 1e+30"),
        ('{"step": 3, "mean": [0, 1], "std": [1]}', "mean has 2 channels and std 1: both need as many, at least 1"),
        ('{"step": 3, "mean": [], "std": []}', "mean has 0 channels and std 0: both need as many, at least 1"),
        ('{"step": 3, "mean": [0]}', "key 'std' is missing: it needs a tuple, each entry a float"),
        ('{"step": 3, "\\ud800": 1}', "unknown key ''\\ud800''"),
        (f'{{"step": {"[" * 33}{"]" * 33}}}', "it is nested deeper than 32 levels"),
        ("[" * 100_000, "it is nested deeper than 32 levels"),
        (" " * (MAX_BYTES + 1), f"it is larger than {MAX_BYTES} bytes, which no such file is"),
    ],
)
def test_a_fault_is_named_with_its_file_and_key(tmp_path, text, message):
    path = tmp_path / latent_stats.FILE
    path.write_text(text)
    with pytest.raises(ValueError) as raised:
        latent_stats.read(tmp_path)
    assert str(raised.value).startswith(f"{path}: {message}")


def test_bytes_that_are_no_utf8_are_named(tmp_path):
    (tmp_path / latent_stats.FILE).write_bytes(b'{"step": "\xff"}')
    with pytest.raises(ValueError, match=rf"{latent_stats.FILE}: it is not UTF-8: byte 10 is 0xff$"):
        latent_stats.measured_step(tmp_path)


def test_numbers_that_are_not_finite_may_stand_where_nothing_reads_them():
    """As in configurations of transformers."""
    index = from_tree(ModelIndex, parse_json('{"time_step_limit": [0.0, Infinity], "x": NaN}'), ignore_unknown=True)
    assert index == ModelIndex()


@pytest.mark.parametrize(
    ("hint", "value", "typed"),
    [
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (Mapping[str, float | None] | None, {"a": 1, "b": None}, {"a": 1.0, "b": None}),
        (Mapping[str, int] | None, None, None),
        (tuple[Mapping[str, str], ...], [{"a": "b"}], ({"a": "b"},)),
    ],
)
def test_mappings_are_typed_too(hint, value, typed):
    assert parse_as(hint, value) == typed


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (Mapping[str, int], [1], "it must be a JSON object, each value an int, not [1]"),
        (Mapping[str, int], {"a": "b"}, "a must be an int, not 'b'"),
        (Mapping[str, str], {"a": "\0"}, "a must be text in UTF-8 without NUL, not '\\x00'"),
        (str, "\udcff", "it must be text in UTF-8 without NUL, not '\\udcff'"),
        (float, 10**400, "it must be a finite number, not 1000"),
        (int, [["x" * 9000] * 9000] * 9000, "it must be an int, not [["),
    ],
)
def test_what_does_not_fit_an_annotation_is_shortened(hint, value, message):
    with pytest.raises(ValueError) as raised:
        parse_as(hint, value)
    assert str(raised.value).startswith(message) and len(str(raised.value)) < 1000
