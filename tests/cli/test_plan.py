"""`videodit plan`: its output, and a sentence for every mistake."""

import json
from pathlib import Path

import pytest

from videodit.cli import main
from videodit.parallel.mesh import MeshConfig, parse_mesh
from videodit.plan import search
from videodit.plan.plan_report import CAUSES, MEMORY, Plan, format_lines, format_overrides

TINY = Path(__file__).with_name("tiny.py")
KEYS = {
    "": ("config", "topology", "mesh", "batch", "remat", "fits", "hbm_bytes", "compile_seconds"),
    "bytes_per_chip": ("parameters", "optimiser", "ema", "temporary", "total"),
    "flops_per_step": ("model", "hardware"),
}
SECONDS = ("matmul", "attention", "hbm", "collectives", "host")


def plan(*args: object) -> int:
    return main(["plan", "--config", f"{TINY}:dit", "--vae", f"{TINY}:vae", *map(str, args)])


def build_plan(**changes) -> Plan:
    """Return a plan with made-up figures."""
    causes = dict(zip(CAUSES, (6.0, 2.0, 0.5, 0.1, 0.4, 1.0, 0.0), strict=True))
    sizes = dict.fromkeys(MEMORY, 2**30) | {"temporary": 3 * 2**30, "total": 9 * 2**30}
    seconds = dict(zip(SECONDS, (3.0, 5.6, 0.4, 1.0, 0.0), strict=True))
    fields = {
        "config": "wan.py:14b",
        "what": "train",
        "topology": "v5p:2x2x1",
        "chips": 4,
        "mesh": {"data": 1, "fsdp": 2, "context": 2, "tensor": 1, "ulysses": 2},
        "batch": 8,
        "tokens_per_clip": 75_600,
        "micro_batches": 2,
        "remat": "attention",
        "fits": True,
        "hbm_bytes": 10 * 2**30,
        "bytes_per_chip": sizes,
        "compile_seconds": 61.2,
        "flops_per_step": {"model": 6e15, "hardware": 8e15},
        "collective_bytes_per_step": {"all-gather": 10**9},
        "seconds": seconds | {"step_no_overlap": 10.0, "step_full_overlap": 8.6},
        "causes": causes,
        "mfu": {"no_overlap": 0.6, "full_overlap": 0.7},
        "tokens_per_second_per_chip": 1234.0,
    }
    return Plan(**(fields | changes))


def test_json_has_all_figures_and_options_change_the_run(capsys, tmp_path):
    page = tmp_path / "pages" / "plan.html"
    options = ("--mesh", "fsdp=2,context=2", "--batch", 16, "--remat", "full", "--html", page, "--json")
    assert plan("--topology", "cpu:8", *options, "--config.model.width=32") == 0
    printed = json.loads(capsys.readouterr().out)
    for group, keys in KEYS.items():
        assert set(keys) <= set(printed[group] if group else printed)
    assert printed["mesh"] == {"data": 2, "fsdp": 2, "context": 2, "tensor": 1, "ulysses": 2}
    assert (printed["batch"], printed["remat"], printed["fits"], printed["hbm_bytes"]) == (16, "full", True, None)
    assert printed["seconds"] is None  # the CPU's speed is unknown
    assert "data=2,fsdp=2,context=2" in page.read_text()


def test_text_reports_memory_and_time():
    text = "\n".join(format_lines(build_plan()))
    for part in ("fits 10.00 GiB with 1.00 to spare", "MFU: 60.0%", "6e+15 of the model", "attention below peak 5.0%"):
        assert part in text
    assert "does not fit 8.00 GiB: 1.00 too many" in list(format_lines(build_plan(fits=False, hbm_bytes=8 * 2**30)))


def test_overrides_are_valid_for_the_trainer():
    from videodit.config.io import load

    run = load(f"{TINY}:dit", format_overrides(build_plan()).split())
    assert run.mesh == MeshConfig(data=1, fsdp=2, context=2, tensor=1, ulysses=2)
    assert (run.data.batch_size, run.optim.micro_batches, run.model.remat) == (8, 2, "attention")


def test_a_search_prints_a_ranking_and_overrides(capsys, monkeypatch, tmp_path):
    slow = build_plan(mfu={"no_overlap": 0.3, "full_overlap": 0.4}, mesh=build_plan().mesh | {"fsdp": 1, "tensor": 2})
    unfit = build_plan(fits=False, remat="none")
    monkeypatch.setattr(search, "search", lambda *args, **kwargs: [build_plan(), slow, unfit])
    page = tmp_path / "plan.html"
    assert plan("--topology", "v5p:2x2x1", "--search", "--html", page) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(
        "1. fsdp=2,context=2, batch 8 in 2 micro-batches, remat attention: 9.0 of 10 GiB, MFU 60.0 to 70.0%"
    )
    assert printed[2].endswith("does not fit")
    assert printed[-1] == f"best: {format_overrides(build_plan())}"
    html = page.read_text()
    assert html.count('aria-label="memory"') == 3 and html.count('aria-label="time"') == 3
    assert format_overrides(build_plan()) in html and "attention below peak" in html
    monkeypatch.setattr(search, "search", lambda *args, **kwargs: [unfit])
    assert plan("--topology", "v5p:2x2x1", "--search") == 0
    assert "none of these fits" in capsys.readouterr().out


def test_the_cost_of_steps(capsys, monkeypatch):
    monkeypatch.setattr("videodit.plan.compile.compile_plan", lambda *args, **kwargs: build_plan())
    assert plan("--topology", "v5p:2x2x1", "--price-per-chip-hour", 3.0, "--steps", 3600, "--json") == 0
    cost = json.loads(capsys.readouterr().out)["cost"]
    assert cost == {"steps": 3600, "full_overlap": pytest.approx(103.2), "no_overlap": pytest.approx(120.0)}
    assert plan("--topology", "v5p:2x2x1", "--price-per-chip-hour", 3.0, "--steps", 3600) == 0
    assert capsys.readouterr().out.endswith("3600 steps cost 103 to 120 at 3 per chip-hour\n")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--topology", "v9:2x2"), "there is no topology 'v9:2x2'"),
        (("--topology", "cpu:8", "--mesh", "rows=2"), "a mesh is AXIS=N,... with axes data, fsdp, context, tensor"),
        (("--topology", "cpu:8", "--batch", 0), "batch_size is 0: it must be from 1 to 16777216"),
        (
            ("--topology", "cpu:8", "--remat", "some"),
            "remat is one of none, full, dots, attention, offload, not 'some'",
        ),
        (("--topology", "v5e:2x2", "--search", "--mesh", "fsdp=4"), "--search chooses mesh and remat"),
        (("--topology", "cpu:8", "--search"), "a search is for training a transformer on TPUs"),
        (
            ("--topology", "cpu:8", "--price-per-chip-hour", -1),
            "--price-per-chip-hour is -1: it must be a price above 0",
        ),
        (("--topology", "cpu:8", "--mesh", "fsdp=2,fsdp=4"), "a mesh is AXIS=N,... with axes data, fsdp"),
        (("--topology", "cpu:8", "--mesh", "fsdp=--1"), "a mesh is AXIS=N,... with axes data, fsdp"),
        (
            ("--topology", "cpu:8", "--vae", f"{TINY}:dit"),
            "kind 'dit': pass that of an autoencoder",
        ),
        (("--topology", "cpu:8", "--price-per-chip-hour", 2), "the speed of cpu:8 is unknown"),
        (("--topology", "cpu:8", "--steps", 0), "--steps is 0: it must be steps above 0"),
        (("--topology", "cpu:8", "--most", 0), "--most is 0: it must be programs above 0"),
        (("--topology", "cpu:8", "--html", Path(__file__) / "plan.html"), f"{Path(__file__)}: File exists"),
        (("--topology", "cpu:8", "--frobnicate"), "Unknown command line flag 'frobnicate'"),
    ],
)
def test_a_mistake_is_one_sentence(args, sentence, capsys):
    assert plan(*args) == 2
    message = capsys.readouterr().err
    assert sentence in " ".join(message.split()) and "Traceback" not in message


def test_default_mesh_sizes():
    assert parse_mesh("fsdp=16,context=4") == MeshConfig(data=-1, fsdp=16, context=4)
    assert parse_mesh("data=1,fsdp=-1") == MeshConfig(data=1, fsdp=-1)
