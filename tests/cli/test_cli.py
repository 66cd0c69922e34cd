"""The command line: the whole pipeline in small, and a clear sentence for every mistake."""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from videodit_data import video
from videodit_data.storage import shard_check
from videodit_data.storage.manifest import load as load_manifest
from videodit_data.storage.manifest import records

from tests.data.captioning.stub import asked_lengths, sends, serving
from videodit.cli import expansion, main
from videodit.cli.main import _build_parser
from videodit.inference.pipeline import Pipeline
from videodit.train import run as train_run

TINY = Path(__file__).with_name("tiny.py")
SHARED = Path(__file__).parents[2].parent / "shared"


def run(*args: object) -> int:
    return main([str(arg) for arg in args])


def train(root: Path, variant: str, data: str, heldout: str, *more: str) -> int:
    paths = [f"--config.data.path={root / data}", f"--config.data.eval_path={root / heldout}"]
    if variant == "dit":
        paths += [f"--config.tokenizer={root / 'tokenizer.model'}", f"--config.vae={root / 'vae'}"]
    return run("train", "--config", f"{TINY}:{variant}", "--workdir", root / variant, *paths, *more)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the whole pipeline: data, tokenizer, autoencoder, latents, transformer; return its directory."""
    root = tmp_path_factory.mktemp("cli")
    size = ("--height", 32, "--width", 32, "--processes", 1)
    assert run("data", "toyworld", "--out", root / "train", "--clips", 12, *size) == 0
    assert run("data", "toyworld", "--out", root / "heldout", "--clips", 8, "--seed", 1, *size) == 0
    assert run("data", "tokenizer", root / "train", "--out", root / "tokenizer.model", "--vocabulary", 128) == 0
    assert train(root, "vae", "train", "heldout") == 0
    for name in ("train", "heldout"):
        assert run("data", "encode", root / name, "--vae", root / "vae", "--out", root / f"{name}-latents") == 0
    assert train(root, "dit", "train-latents", "heldout-latents") == 0
    return root


def test_a_run_leaves_metrics_pictures_and_a_checkpoint(root):
    for workdir in (root / "vae", root / "dit"):
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        assert {line["step"] for line in lines} == {1, 2}
        assert any("eval/loss_t0.5" in line or "eval/psnr" in line for line in lines)
        assert list((workdir / "samples").glob("*.png"))
        assert (workdir / "checkpoints" / "2").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["frame_causal", "factorized", "local_window", "sliding_tiles"])
def test_a_transformer_with_masked_attention_trains_and_samples(root, kind):
    flags = [f"attention.kind={kind}", "attention.window=2", "attention.tile=(1,1,2)", "attention.local_window=(2,1,1)"]
    flags = [*(f"--config.model.{flag}" for flag in flags), "--config.model.depth=2", "--config.sample_every=0"]
    workdir, out = root / kind, root / "generated" / f"{kind}.mp4"
    assert train(root, "dit", "train-latents", "heldout-latents", "--workdir", workdir, *flags) == 0
    losses = [json.loads(line).get("loss", 0.0) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite(losses).all() and any(losses)
    assert run("sample", "--checkpoint", workdir, "--prompt", "a red circle", "--out", out) == 0
    assert video.probe(out).frames == 9


def test_samples_play_and_store_their_provenance(root):
    out = root / "generated" / "red.mp4"
    prompt = "a small red circle moves left"
    assert run("sample", "--checkpoint", root / "dit", "--prompt", prompt, "--out", out, "--seed", 3) == 0
    info = video.probe(out)
    assert (info.frames, info.height, info.width, info.fps) == (9, 16, 16, 8.0)
    facts = json.loads(out.with_suffix(".json").read_text())
    assert facts == json.loads(info.metadata["comment"])
    assert (facts["prompt"], facts["seed"], facts["step"], facts["weights"]) == (prompt, 3, 2, "ema")
    assert facts["versions"]["jax"]


def test_prompts_are_expanded_and_both_are_kept(root, monkeypatch, capsys):
    model_prompts: list[str] = []

    def generate(self: Pipeline, prompts: list[str], **options: object) -> Iterator[np.ndarray]:
        model_prompts.extend(prompts)
        return (np.zeros((9, 16, 16, 3), np.uint8) for _ in prompts)

    monkeypatch.setattr(Pipeline, "generate", generate)
    out, prompt = root / "generated" / "expanded.mp4", "a red circle moves"
    sample = ("sample", "--checkpoint", root / "dit", "--prompt", prompt, "--out", out)
    with serving() as stub:
        expand_options = ("--expand", stub.url, "--expand-model", "eyes", "--expand-length", "short")
        assert run(*sample, *expand_options) == 0
        assert asked_lengths(stub.requests[0][2]) == ["short"]
        facts = json.loads(out.with_suffix(".json").read_text())
        assert facts["prompt"] == prompt and facts["expanded_by"] == "eyes, template 1, short"
        assert facts["expanded_prompt"] in " ".join(capsys.readouterr().err.split())
        assert model_prompts == [facts["expanded_prompt"]]

        stub.always(sends(b"{}", 401))
        out.unlink()
        assert run(*sample, *expand_options) == 2 and not out.exists()
        stderr = capsys.readouterr().err
        assert "cannot be expanded" in stderr and "refuses the key" in stderr and "Traceback" not in stderr
        args = _build_parser().parse_args([str(arg) for arg in (*sample, *expand_options, "--expand-or-plain")])
        plain = expansion.expand(args, [prompt, "a cat"], Console(quiet=True))
        assert [text.text for text in plain] == [prompt, "a cat"] and all(text.reason for text in plain)


def test_a_data_set_is_captioned_by_an_endpoint_or_ones_own_function(root, tmp_path, monkeypatch, capsys):
    with serving() as stub:
        options = ("--endpoint", stub.url, "--model", "eyes", "--lengths", "short", "--keep", "none")
        assert run("data", "caption", root / "heldout", "--out", tmp_path / "set", *options) == 0
    assert "8 of 8 clips captioned" in capsys.readouterr().err
    sources = {record.caption_sources for record in records(tmp_path / "set")}
    assert sources == {("eyes, template 1, short",)}
    (tmp_path / "own.py").write_text("def caption(clips, lengths):\n    return [{'short': 'word ' * 9}] * len(clips)\n")
    monkeypatch.chdir(tmp_path)
    options = ("--captioner", "own:caption", "--lengths", "short")
    assert run("data", "caption", tmp_path / "set", "--out", tmp_path / "again", *options) == 0
    first = records(tmp_path / "again")[0]
    assert first.caption_sources == ("own:caption, short", "eyes, template 1, short")
    assert first.truth == records(root / "heldout")[0].truth


def test_the_same_seed_makes_the_same_clip_at_any_batch(root):
    prompts = root / "prompts.txt"
    prompts.write_text("a red circle moves left\n\na blue diamond bounces\na green square moves up\n")
    for batch in (1, 3):
        out = root / f"batch{batch}"
        assert run("sample", "--checkpoint", root / "dit", "--prompts", prompts, "--out", out, "--batch", batch) == 0
    for index in range(3):
        one, three = (video.decode(root / f"batch{n}" / f"{index:04d}.mp4", 0, 9) for n in (1, 3))
        assert np.abs(one.astype(int) - three).max() <= 2


def test_other_sizes_lengths_and_kinds_of_file(root):
    base = ("sample", "--checkpoint", root / "dit", "--prompt", "a red diamond", "--height", 24, "--width", 32)
    assert run(*base, "--frames", 5, "--fps", 4, "--steps", 3, "--solver", "euler", "--out", root / "x.gif") == 0
    with Image.open(root / "x.gif") as animation:
        assert (animation.n_frames, animation.size) == (5, (32, 24))
        assert "a red diamond" in animation.info["comment"].decode()
    assert run(*base, "--guidance", 1, "--out", root / "x.png") == 0
    with Image.open(root / "x.png") as sheet:
        assert "a red diamond" in sheet.text["videodit"]


def test_scores_and_report(root):
    out = root / "scores"
    assert (
        run(
            "eval",
            "--checkpoint",
            root / "dit",
            "--data",
            root / "heldout",
            "--out",
            out,
            "--clips",
            8,
            "--guidance",
            2.5,
        )
        == 0
    )
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["provenance"]["sampler"]["guidance"] == 2.5
    assert {"colour", "shape", "motion"} <= set(metrics["caption_adherence"])
    assert metrics["prompts"] == 8
    assert set(metrics["oracle_on_real_clips"]) == set(metrics["caption_adherence"])
    assert metrics["vae_psnr"] > 0
    html = (out / "report.html").read_text()
    assert "data:video/mp4;base64," in html
    assert len(list((out / "samples").glob("*.mp4"))) == 8


def test_damaged_metrics_are_named_before_any_work(root, tmp_path, capsys):
    path = root / "dit" / "metrics.jsonl"
    before, line = path.read_bytes(), path.read_bytes().count(b"\n") + 1
    path.write_bytes(before + b'{"step": "7", "loss": 1.0}\n' + before)
    try:
        assert run("eval", "--checkpoint", root / "dit", "--data", root / "heldout", "--out", tmp_path / "scores") == 2
        assert train(root, "dit", "train-latents", "heldout-latents", "--config.steps=4") == 2
    finally:
        path.write_bytes(before)
    sentences = capsys.readouterr().err.strip().splitlines()
    assert len(sentences) == 2
    assert all(each.startswith(f"videodit: {path}, line {line}, is damaged: it holds ") for each in sentences)
    assert not list(tmp_path.iterdir())
    assert '"steps": 2' in (root / "dit" / "config.json").read_text()


@pytest.fixture
def exchanged(root, tmp_path):
    """Return a data set like the training set, whose shard is another one that is read without an error."""
    shutil.copytree(root / "train", tmp_path / "exchanged")
    shard = next((tmp_path / "exchanged").glob("*.array_record"))
    shard.write_bytes(b"?" + shard.read_bytes()[1:])
    return tmp_path / "exchanged"


def check_named(exchanged: Path, capsys: pytest.CaptureFixture) -> None:
    (shard,) = load_manifest(exchanged).shards
    message = capsys.readouterr().err
    assert f"{exchanged} is damaged or was exchanged: {shard.name} has sha256" in message.replace("\n", "")
    assert shard.sha256 in message and "build or copy the data set again" in message and "Traceback" not in message


@pytest.mark.parametrize("role", ["path", "eval_path"])
def test_a_shard_that_was_exchanged_is_not_trained_on(root, exchanged, role, tmp_path, capsys):
    paths = {"path": root / "train", "eval_path": root / "heldout"} | {role: exchanged}
    command = ["train", "--config", f"{TINY}:vae", "--workdir", tmp_path / "vae"]
    assert run(*command, *(f"--config.data.{name}={path}" for name, path in paths.items())) == 2
    check_named(exchanged, capsys)
    assert not (tmp_path / "vae").exists()


def test_one_that_is_found_in_the_background_stops_the_run(exchanged, tmp_path, capsys, monkeypatch):
    def read_batches(run, task, loader, *args, **kwargs) -> None:
        while True:
            next(loader)

    monkeypatch.setattr(shard_check, "AT_ONCE", -1)
    monkeypatch.setattr(train_run, "train", read_batches)
    options = [f"--config.data.path={exchanged}", "--config.data.prefetch=0"]
    assert run("train", "--config", f"{TINY}:vae", "--workdir", tmp_path / "vae", *options) == 2
    check_named(exchanged, capsys)


@pytest.mark.slow
def test_nor_is_it_evaluated_on(root, exchanged, tmp_path, capsys):
    assert run("eval", "--checkpoint", root / "dit", "--data", exchanged, "--out", tmp_path / "scores") == 2
    check_named(exchanged, capsys)
    assert not (tmp_path / "scores").exists()


def test_inspect_draws_what_a_data_set_holds(root, capsys):
    assert run("data", "inspect", root / "train", "--sheet", root / "sheet.png") == 0
    assert "12" in capsys.readouterr().out
    with Image.open(root / "sheet.png") as sheet:
        assert sheet.size[0] > 100


MISTAKES = {
    "unknown key": (["train", "--config", f"{TINY}:vae", "--config.model.chanels=3"], "did you mean 'model.channels'"),
    "wrong type": (["train", "--config", f"{TINY}:vae", "--config.steps=many"], "steps must be an int, not 'many'"),
    "no heads": (
        ["train", "--config", f"{TINY}:dit", "--config.model.num_heads=0"],
        "model: num_heads is 0: it must be from 1 to 16777216",
    ),
    "a billion steps": (
        ["train", "--config", f"{TINY}:dit", "--config.sampler.steps=1000000000"],
        "sampler: steps is 1000000000: it must be from 1 to 100000",
    ),
    "no UTF-8": (
        ["sample", "--checkpoint", "nowhere", "--prompt", "x", "--out", "\udcff.mp4"],
        "the argument '\\udcff.mp4' is not UTF-8",
    ),
    "no UTF-8 in an override": (
        ["train", "--config", f"{TINY}:vae", "--config.data.path=\udcff"],
        "is not UTF-8: rename the file or folder",
    ),
    "no number": (
        ["sample", "--checkpoint", "nowhere", "--prompt", "x", "--out", "x.mp4", "--condition", "motion=nan"],
        "--condition is NAME=NUMBER",
    ),
    "missing config": (["train", "--config", "configs/tinny.py"], "no configuration file"),
    "unknown variant": (["train", "--config", f"{TINY}:gan"], "variants vae and dit"),
    "missing data": (["train", "--config", f"{TINY}:vae", "--config.data.path=nowhere"], "nowhere"),
    "no checkpoint": (
        ["sample", "--checkpoint", "nowhere", "--prompt", "x", "--out", "x.mp4"],
        "not a run's directory",
    ),
    "odd suffix": (["sample", "--checkpoint", "nowhere", "--prompt", "x", "--out", "x.avi"], "must end in one of .mp4"),
    "stray option": (["sample", "--checkpoint", "a", "--prompt", "x", "--out", "x.mp4", "--fast"], "'--fast'"),
    "no folder": (["data", "ingest", "nowhere", "--out", "x"], "not a folder of videos"),
    "nothing to caption": (
        ["data", "caption", "no", "--out", "x", "--captioner", "json:dumps"],
        "no is not a data set",
    ),
    "no captioner": (["data", "caption", "no", "--out", "x", "--captioner", "json"], "named as module:function"),
    "no model": (["data", "caption", "no", "--out", "x", "--endpoint", "http://a"], "--endpoint goes with --model"),
    "no such length": (
        ["data", "caption", "no", "--out", "x", "--captioner", "a:b", "--lengths", "tiny"],
        "there are short, medium, long",
    ),
    "no expanding model": (
        ["sample", "--checkpoint", "no", "--prompt", "x", "--out", "x.mp4", "--expand", "http://a"],
        "--expand goes with --expand-model",
    ),
    "no data set": (["data", "inspect", "nowhere"], "nowhere"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_sentence_and_writes_nothing(mistake, tmp_path, monkeypatch, capsys):
    args, words = MISTAKES[mistake]
    if args[0] == "train":
        args = [*args, "--workdir", "workdir"]
    monkeypatch.chdir(tmp_path)
    assert run(*args) == 2
    stderr = capsys.readouterr().err
    assert words in stderr
    assert stderr.startswith("videodit: ") and len(stderr.strip().splitlines()) == 1
    assert "Traceback" not in stderr
    assert not list(tmp_path.iterdir())


def test_eval_knows_before_any_work_that_it_cannot_write(tmp_path, capsys):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "scores"
    assert run("eval", "--checkpoint", tmp_path / "none", "--data", tmp_path, "--out", out) == 2
    assert f"{tmp_path / 'file'} is not a folder; choose another place" in capsys.readouterr().err


def test_a_disk_without_room_is_one_sentence(tmp_path, file_limit, capsys):
    with file_limit(1000):
        assert run("data", "toyworld", "--out", tmp_path / "toy", "--clips", 2, "--processes", 1) == 2
    stderr = capsys.readouterr().err
    assert re.fullmatch(r"videodit: .*clip.mp4 could not be written, since a file may not be so large .*\n", stderr)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory: take smaller sizes, or a machine with more memory"),
        (
            RuntimeError("INTERNAL: Out of memory allocating 9 bytes."),
            "out of memory (INTERNAL: Out of memory allocating",
        ),
        (MemoryError("Unable to allocate 728. TiB"), "out of memory (Unable to allocate 728. TiB): take smaller sizes"),
    ],
)
def test_a_lack_of_memory_is_a_sentence(monkeypatch, capsys, error, words):
    monkeypatch.setattr("videodit.cli.train.command", Mock(side_effect=error))
    assert run("train", "--config", f"{TINY}:vae", "--workdir", "x") == 2
    assert capsys.readouterr().err.startswith(f"videodit: {words}")


def test_a_working_directory_that_is_no_utf8_is_named(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "\udcff"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert run("data", "toyworld", "--out", "x") == 2
    assert "working directory" in (err := capsys.readouterr().err) and "is not UTF-8: rename" in err
    assert not list(folder.iterdir())


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="not a folder"):
        run("data", "ingest", "nowhere", "--out", "x", "--debug")


def test_a_workdir_of_another_run_is_left_alone(root, capsys):
    before = sorted((p, p.stat().st_mtime_ns) for p in (root / "vae").rglob("*"))
    assert train(root, "vae", "train", "heldout", "--config.seed=9") == 2
    assert "seed is 0 there and 9 here" in capsys.readouterr().err
    assert sorted((p, p.stat().st_mtime_ns) for p in (root / "vae").rglob("*")) == before


def test_an_autoencoder_cannot_be_sampled(root, capsys):
    assert run("sample", "--checkpoint", root / "vae", "--prompt", "x", "--out", root / "no.mp4") == 2
    assert "kind 'vae'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [[], ["train"], ["sample"], ["eval"], ["quickstart"], ["data"], ["data", "ingest"], ["data", "caption"]]
)
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert "videodit" in capsys.readouterr().out


def test_help_is_quick_because_it_loads_no_jax():
    code = "import sys; from videodit.cli.main import _build_parser; _build_parser(); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "data" / "videos").is_dir(), reason="needs the clips of ../shared/data/videos")
def test_real_footage_goes_the_whole_way(tmp_path):
    folder = tmp_path / "footage"
    folder.mkdir()
    for name in ("hiker.mp4", "nasa_13013.mp4"):
        (folder / name).write_bytes((SHARED / "data" / "videos" / name).read_bytes())
    captions = SHARED / "data" / "captions.jsonl"
    assert run("data", "ingest", folder, "--out", tmp_path / "clips", "--captions", captions) == 0
    assert run("data", "tokenizer", tmp_path / "clips", "--out", tmp_path / "tokenizer.model", "--vocabulary", 128) == 0
    assert train(tmp_path, "vae", "clips", "clips") == 0
    assert train(tmp_path, "dit", "clips", "clips") == 0  # from pixels: the step runs the autoencoder
    prompt = "The silhouette of a hiker with a backpack on a mountain ridge at sunset."
    assert run("sample", "--checkpoint", tmp_path / "dit", "--prompt", prompt, "--out", tmp_path / "hiker.mp4") == 0
    assert video.probe(tmp_path / "hiker.mp4").frames == 9


@pytest.mark.slow
def test_two_processes_train_evaluate_and_draw_as_one(root, tmp_path):
    """Both stages, at once in two processes: the transformer opens the autoencoder that both have trained."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    for variant in ("vae", "dit"):
        command = [sys.executable, "-m", "videodit.cli.main", "train", "--config", f"{TINY}:{variant}"]
        command += ["--workdir", str(tmp_path / variant), "--coordinator", address, "--processes", "2"]
        command += [f"--config.data.path={root / 'train'}", f"--config.data.eval_path={root / 'heldout'}"]
        if variant == "dit":
            command += [f"--config.tokenizer={root / 'tokenizer.model'}", f"--config.vae={tmp_path / 'vae'}"]
        both = [subprocess.Popen([*command, "--process", str(i)], stderr=subprocess.PIPE, text=True) for i in range(2)]
        ends = [(process.communicate(timeout=300)[1], process.returncode) for process in both]
        assert [status for _, status in ends] == [0, 0], ends
        assert "trained to step 2" in ends[0][0] and "trained to step" not in ends[1][0]
        lines = [json.loads(line) for line in (tmp_path / variant / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if "loss" in line] == [1, 2]
        assert any(name.startswith("eval/") for line in lines for name in line)
        assert list((tmp_path / variant / "samples").glob("*.png"))


@pytest.mark.parametrize("option", ["--steps=1000000000", "--steps=0", "--guidance=nan", "--solver=magic"])
@pytest.mark.parametrize("command", ["sample", "eval"])
def test_what_no_sampler_can_do_is_refused_before_a_model_is_loaded(command, option, tmp_path, capsys):
    rest = ["--prompt", "x"] if command == "sample" else ["--data", tmp_path]
    assert run(command, "--checkpoint", tmp_path / "none", *rest, "--out", tmp_path / "x.mp4", option) == 2
    name, value = option.removeprefix("--").split("=")
    message = capsys.readouterr().err
    assert name in message and value in message
