"""Mistakes on the command line of `videodit data`, and files that it never overwrites."""

import json
import subprocess
import sys

import pytest
from videodit_data import video
from videodit_data.reading.buckets import Buckets
from videodit_data.reading.packing import Packing
from videodit_data.storage import manifest

from tests.data import conftest as data_fixtures
from tests.data.captioning.stub import says, serving
from tests.data.reading.test_bucket_stats import coded
from videodit.cli.data import bucket_options
from videodit.cli.main import main

numbered, data_set = data_fixtures.numbered, data_fixtures.data_set


@pytest.fixture
def run_data(capfd):
    """Return a function that runs `videodit data` and returns the exit status, and the output on one line."""

    def run(*words):
        capfd.readouterr()
        try:
            status = main(["data", *map(str, words)])
        except SystemExit as ended:  # argparse's
            status = ended.code
        return status, " ".join("".join(capfd.readouterr()).split())

    return run


@pytest.fixture(scope="module")
def clips(data_set, tmp_path_factory):
    """Build a data set of four videos of 5 to 17 frames; return its directory."""
    return data_set(tmp_path_factory.mktemp("sets") / "clips", [5, 9, 17, 9])


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("action", ["tokenizer", "report"])
@pytest.mark.parametrize("file", ["manifest.json", "*.array_record", "."])
def test_nothing_but_its_own_kind_is_overwritten(clips, run_data, action, file):
    before = contents(clips)
    status, output = run_data(action, clips, "--out", next(clips.glob(file)) if file != "." else clips)
    assert status == 2 and "choose another place" in output
    assert contents(clips) == before


def test_a_tokenizer_is_never_replaced_by_another(clips, tmp_path, run_data):
    out = tmp_path / "tokenizer.model"
    assert run_data("tokenizer", clips, "--out", out, "--vocabulary", 60)[0] == 0
    before = out.read_bytes()
    assert run_data("tokenizer", clips, "--out", out, "--vocabulary", 60)[0] == 0
    status, output = run_data("tokenizer", clips, "--out", out, "--vocabulary", 50)
    assert status == 2 and "is another tokenizer" in output and contents(tmp_path) == {out.name: before}


@pytest.mark.parametrize(("pieces", "words"), [(2, "from 4 to"), (5, "it needs"), (2**40, "from 4 to")])
def test_sizes_that_no_tokenizer_has(clips, tmp_path, run_data, pieces, words):
    status, output = run_data("tokenizer", clips, "--out", tmp_path / "tokenizer.model", "--vocabulary", pieces)
    assert status == 2 and words in output and "INTERNAL" not in output and not any(tmp_path.iterdir())


@pytest.mark.parametrize("stride", [(4, 8), (2, 4), (8, 16)])
def test_bucket_stats_of_latents_use_their_own_stride(tmp_path, run_data, stride):
    latents = coded(tmp_path / "latents", [1 + 2 * stride[0]] * 8, stride, 96)
    tokens = 3 * (96 // stride[1] // 2) ** 2
    status, output = run_data("buckets", latents, "--tokens", 1000)
    assert status == 0 and f"│ 8 │ {tokens} │ {1000 // tokens} │" in output
    assert run_data("buckets", latents, "--tokens", 1000, "--stride", *stride) == (status, output)
    status, output = run_data("buckets", latents, "--stride", stride[0], 2 * stride[1])
    assert status == 2 and f"a VAE of --stride {stride[0]} {stride[1]}, not {stride[0]} {2 * stride[1]}." in output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--stride", 0, 0], "argument --stride: '0' is not a whole number from 1 to 16777216"),
        (["--batch-size", 4], "--batch-size, --clips and --look-ahead go with --length"),
        (["--length", 0], "argument --length: '0' is not a whole number from 1 to 2147483647"),
        (["--length", 10, "--clips", 0], "argument --clips: '0' is not a whole number from 1 to 16777216"),
        (["--fps", "nan"], "argument --fps: 'nan' is not a number from 0.001 to 1000000.0"),
        (["--resolutions", "abc"], "--resolutions: 'abc' is not whole numbers"),
        (["--resolutions", "32,8"], "resolutions are at least 16 pixels, not 8."),
        (["--sides=32"], "the option --sides is called --resolutions now"),
        (["--rows", 4], "the option --rows is called --batch-size now"),
        (["--aspects", "16x9"], "--aspects: '16x9' is not ratios of width to height"),
        (["--aspects", "16:0"], "--aspects: '16:0' is not ratios"),
        (["--aspects", "16:"], "--aspects: '16:' is not ratios"),
        (["--aspects", "1:1,9000:1"], "like 16:9,1:1: a ratio is from 0.001 to 1000.0"),
        (["--resolutions", "32", "--frames", "1"], "4 videos where the only length is that of images"),
    ],
)
def test_a_mistake_gets_one_sentence(clips, run_data, options, words):
    status, output = run_data("buckets", clips, *options)
    assert status == 2 and words in output and "lambda" not in output and "Traceback" not in output


def test_help_shows_the_defaults(run_data):
    output, buckets, packing = run_data("buckets", "--help")[1], Buckets(), Packing(1)
    for value in (buckets.resolutions, buckets.frames, (packing.clips,), (packing.look_ahead,), (buckets.tokens,)):
        assert f"(default: {','.join(map(str, value))})" in output
    assert f"(default: {buckets.fps:g})" in output
    ratios = "9:16,3:4,1:1,4:3,16:9"
    assert f"(default: {ratios})" in output and bucket_options._parse_ratios(ratios) == buckets.aspects


def test_a_server_of_rubbish_makes_no_success(clips, tmp_path, run_data):
    with serving() as stub:
        stub.always(says("no"))
        caption_options = ["--endpoint", stub.url, "--model", "eyes", "--lengths", "short", "--attempts", 1]
        status, output = run_data("caption", clips, "--out", tmp_path / "set", *caption_options, "--dead-after", 3)
        assert status == 2 and "all failed" in output and not (tmp_path / "set").exists()
        status, output = run_data("caption", clips, "--out", tmp_path / "set", *caption_options)
    assert status == 1 and "0 of 4 clips captioned" in output and f"--reuse {tmp_path / 'set'}" in output


ACTIONS = ("build", "report", "ingest", "toyworld", "inspect", "caption", "buckets", "tokenizer", "encode", "tfds")


def test_help_has_an_example_of_each_action_and_each_action_its_own(run_data):
    assert all(f" videodit data {action} " in run_data("--help")[1] for action in ACTIONS)
    for action in set(ACTIONS) - {"build", "report"}:
        shown = run_data(action, "--help")[1].partition("examples: ")[2].split("videodit data ")[1:]
        assert shown and {line.split()[0] for line in shown} == {action}


def test_an_unknown_option_is_of_the_action(run_data, tmp_path):
    status, output = run_data("caption", tmp_path, "--out", tmp_path / "x", "--captioner", "a:b", "--fast")
    command = "`videodit data caption"
    assert status == 2 and f"'--fast' is not an option of {command}`: see {command} --help`" in output


def test_the_package_is_the_command():
    command = [sys.executable, "-m", "videodit", "data", "tokenizer", "x", "--fast"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "the following arguments are required: --out" in done.stderr


ESC, TURN = "\x1b[2J\x1b]0;x\x07", "\u202e\u2066\x9b"


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", f"no{ESC}{TURN}set"),
        ("inspect", "x", f"--so{ESC}me{TURN}"),
        (f"bui{ESC}ld{TURN}",),
        ("toyworld", "--out", "x", "--clips", f"1{ESC}{TURN}"),
        ("caption", f"no{ESC}{TURN}set", "--out", "x", "--endpoint", f"htp://h{ESC}{TURN}", "--model", "m"),
        ("ingest", f"no{ESC}{TURN}folder", "--out", "x"),
    ],
    ids=lambda words: words[0][:3] if isinstance(words, tuple) else None,
)
def test_no_control_of_a_word_reaches_the_terminal(run_data, words):
    status, printed = run_data(*words)
    assert status == 2
    assert printed and not set(printed) & set("\x1b\x07\x9b\u202e\u2066")


def test_names_and_captions_of_an_ingested_folder_control_nothing(numbered, tmp_path, capfd):
    folder = tmp_path / f"in{ESC.replace('/', '')}{TURN}"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(video.encode(None, numbered(2), 8))
    (folder / "a.json").write_text(json.dumps({"caption": f"a{ESC}", "source": f"s{TURN}[/b]", "licence": f"l{ESC}"}))
    (folder / f"b{ESC}{TURN}[b].mp4").write_text("none")
    (folder / "c.mp4").symlink_to(f"../else{ESC}{TURN}")
    assert main(["data", "ingest", str(folder), "--out", str(tmp_path / "set")]) == 0
    assert main(["data", "inspect", str(tmp_path / "set")]) == 0
    printed = "".join(capfd.readouterr())
    assert "Left out: 2" in printed and not set(printed) & set("\x1b\x07\x9b\u202e\u2066")


def test_links_are_followed_on_request_only(numbered, run_data, tmp_path):
    folder, other = tmp_path / "linked", tmp_path / "elsewhere"
    folder.mkdir()
    other.mkdir()
    for root in (folder, other):
        (root / "m.mp4").write_bytes(video.encode(None, numbered(2), 8))
        (root / "m.txt").write_text("a caption")
    (folder / "d").symlink_to(other)
    (folder / "p.mp4").write_bytes((folder / "m.mp4").read_bytes())
    (folder / "p.txt").symlink_to("/proc/self/environ")
    status, output = run_data("ingest", folder, "--out", tmp_path / "one")
    assert status == 0 and "d" in output and "--follow-links" in output
    assert [record.id for record in manifest.records(tmp_path / "one")] == ["m.mp4"]
    assert run_data("ingest", folder, "--out", tmp_path / "two", "--follow-links")[0] == 0
    assert [record.id for record in manifest.records(tmp_path / "two")] == ["d/m.mp4", "m.mp4"]
    for name in ("one", "two"):
        reasons = {item.file: item.reason for item in manifest.load(tmp_path / name).left_out}
        assert reasons["p.mp4"] == "p.txt cannot be used: a link into /proc, which is never read"


@pytest.mark.parametrize("option", ["--endpoint", "--expand"])
def test_an_address_with_a_key_is_refused_before_anything_is_written(clips, run_data, tmp_path, capfd, option):
    url = "http://127.0.0.1:9/v1?api-key=Secret123"
    words = ["data", "caption", str(clips), "--out", str(tmp_path / "out"), "--endpoint", url, "--model", "m"]
    if option == "--expand":
        words = ["sample", "--checkpoint", "x", "--prompt", "p", "--out", str(tmp_path / "x.mp4"), "--expand", url]
        words += ["--expand-model", "m"]
    assert main(words) == 2
    printed = "".join(capfd.readouterr())
    assert "key-env" in printed and "Secret123" not in printed and not list(tmp_path.iterdir())
