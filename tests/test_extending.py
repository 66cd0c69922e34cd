"""The examples of docs/extending.md: its files are written into an empty folder, its commands run there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from videodit_data.storage import manifest

from tests.cli.test_cli import run
from tests.inference.tiny_models import write_text_to_video

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
SLOW = {
    "A loss weighting",
    "A conditioning input",
    "A new attention variant",
    "An attention mask that exists",
    "A data set in a known format",
}
IN_TREE = "A mesh axis"


def files_of(section: str, language: str = "python") -> dict[str, str]:
    """Return the files that a section writes, by path."""
    return dict(re.findall(rf"^```{language} title=(\S+)\n(.*?)^```$", SECTIONS[section], re.M | re.S))


def commands_of(section: str) -> list[list[str]]:
    """Return the commands that a section runs, as words without the program's name."""
    blocks = re.findall(r"^```console\n(.*?)^```$", SECTIONS[section], re.M | re.S)
    lines = [line.removeprefix("$ videodit ") for block in blocks for line in block.splitlines()]
    return [[quoted or word for quoted, word in re.findall(r'"([^"]*)"|(\S+)', line)] for line in lines]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Write the quickstart's data and models in small into a new working directory; yield it."""
    write_text_to_video(tmp_path / "runs" / "quickstart" / "dit")
    size = ("--frames", 9, "--height", 16, "--width", 16, "--processes", 1)
    for name, clips in (("train", 16), ("heldout", 4)):
        out = tmp_path / "runs" / "quickstart" / "data" / name
        assert run("data", "toyworld", "--out", out, "--clips", clips, *size) == 0
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.py").write_text(QUICKSTART)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_project"]:
        del sys.modules[name]


QUICKSTART = """
import dataclasses

from tests.cli.tiny import get_config as tiny
from videodit.config.io import from_config_dict, to_config_dict


def get_config(variant):
    run = from_config_dict(tiny(variant))
    data = dataclasses.replace(run.data, path="runs/quickstart/data/train", eval_path="runs/quickstart/data/heldout")
    run = dataclasses.replace(run, data=data)
    if variant == "dit":
        home = "runs/quickstart/dit"
        run = dataclasses.replace(run, tokenizer=f"{home}/tokenizer.model", vae=f"{home}/vae")
    return to_config_dict(run)
"""


def test_the_table_counts_the_files():
    rows = re.findall(r"^\| \[.+?\]\(#(.+?)\) \| (\d+) \|$", PAGE, re.M)
    sections = {re.sub(r"[^a-z0-9-]", "", name.lower().replace(" ", "-")): name for name in SECTIONS}
    counted = {anchor: len({**files_of(name), **files_of(name, "diff")}) for anchor, name in sections.items()}
    assert dict(rows) == {anchor: str(count) for anchor, count in counted.items()}


@pytest.mark.parametrize(
    "section",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SECTIONS if name != IN_TREE],
)
def test_a_change_works_as_it_stands_there(section, project):
    for path, text in files_of(section).items():
        (project / path).parent.mkdir(exist_ok=True)
        (project / path).write_text(text)
    if section == "A data format":
        write_videos(project)
    assert commands_of(section)
    for words in commands_of(section):
        assert run(*words) == 0, words
    if section == "A metric":
        scores = json.loads((project / "scores" / "metrics.json").read_text())
        assert 0 <= scores["flicker"] <= 1 and "caption_adherence" in scores
    if section == "A conditioning input":
        facts = json.loads((project / "wide.json").read_text())
        assert facts["conditions"] == {"aspect": 1.5}


def write_videos(folder: Path) -> None:
    """Write videos into a folder, and the list of them."""
    with (folder / "clips.jsonl").open("w") as file:
        for index, record in enumerate(manifest.records(folder / "runs" / "quickstart" / "data" / "train")):
            path = folder / f"{index}.mp4"
            path.write_bytes(record.video)
            print(json.dumps({"path": str(path), "caption": record.captions[0]}), file=file)


AXIS = """
import jax, numpy as np
from videodit.parallel.mesh import MeshConfig, make_mesh, parse_mesh
from videodit.parallel.rules import count_shards, sharding_for

mesh = make_mesh(parse_mesh("data=1,replica=2,fsdp=2,context=2"))
assert dict(mesh.shape)["replica"] == 2 and count_shards("batch", mesh) == 4
assert sharding_for(("embed",), (8,), mesh).shard_shape((8,)) == (2,)
assert make_mesh(MeshConfig()).size == 8
"""


def test_a_mesh_axis_is_two_files(tmp_path):
    """The diffs apply to a copy of the tree, where the new axis divides batches."""
    for package in ("videodit/parallel", "videodit"):
        for file in (ROOT / package).glob("*.py"):
            target = tmp_path / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    for path, text in files_of(IN_TREE, "diff").items():
        patch = f"--- a/{path}\n+++ b/{path}\n{text}"
        subprocess.run(["git", "apply", "--recount", "-"], input=patch, text=True, cwd=tmp_path, check=True)
    done = subprocess.run([sys.executable, "-c", AXIS], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
