"""Plans against the compiled programs."""

import dataclasses
import subprocess
from pathlib import Path

import pytest

from tests.cli.tiny import get_config
from videodit.config.io import from_config_dict, load
from videodit.models.flops import dit_cost
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.plan.compile import compile_plan
from videodit.plan.hlo_counts import count_operations
from videodit.plan.plan_report import format_lines
from videodit.plan.program import build_program
from videodit.plan.topology import Topology

VAE = from_config_dict(get_config("vae"))
CPUS = Topology.parse("cpu:8")


def tiny(variant: str, **mesh: int):
    return dataclasses.replace(from_config_dict(get_config(variant)), mesh=MeshConfig(**mesh))


@pytest.mark.parametrize(
    ("what", "variant", "mesh"),
    [
        pytest.param("train", "dit", {"fsdp": 2, "context": 2}, marks=pytest.mark.slow),
        pytest.param("sample", "dit", {}, marks=pytest.mark.slow),
        pytest.param("denoise", "dit", {"context": 4}, marks=pytest.mark.slow),
        ("decode", "dit", {"context": 4}),
        pytest.param("vae", "dit", {"fsdp": 4}, marks=pytest.mark.slow),
    ],
)
def test_on_cpus_the_plan_equals_the_executable(what, variant, mesh, tmp_path):
    run = tiny(variant, **mesh)
    plan = compile_plan(run, CPUS, what, VAE, name="tiny", hlo=tmp_path / "step.txt")
    devices = make_mesh(run.mesh, heads=run.heads)
    compiled = build_program(what, run, devices, VAE.model).compile(devices)
    memory, sizes = compiled.memory_analysis(), plan.bytes_per_chip
    arguments = ("parameters", "optimiser", "ema", "inputs")
    assert sum(sizes[name] for name in arguments) == memory.argument_size_in_bytes
    assert sizes["temporary"] == memory.temp_size_in_bytes
    assert sizes["outputs"] == memory.output_size_in_bytes - memory.alias_size_in_bytes
    assert plan.fits and plan.seconds is None and plan.mfu is None  # the CPU's speed is unknown
    assert count_operations((tmp_path / "step.txt").read_text()) == count_operations(compiled.as_text())
    if what == "denoise":
        # Solver steps and both halves of guidance count; twelve tokens are padded.
        assert 1 <= plan.flops_per_step["hardware"] / plan.flops_per_step["model"] < 2
    if what == "train":
        assert sizes["gradients"] == sizes["parameters"] and sizes["optimiser"] > 2 * sizes["parameters"]
        tokens, text = run.data.batch_size * 3 * 2 * 2, run.data.text_length
        assert plan.flops_per_step["model"] > dit_cost(run.model, tokens // 8, text).train_flops * 8
        assert plan.flops_per_step["hardware"] >= plan.flops_per_step["model"] * 0.9
        assert {"all-gather", "all-reduce"} <= set(plan.collective_bytes_per_step)


def test_errors_of_the_child_process_are_raised():
    with pytest.raises(ValueError, match="a mesh of data=3, fsdp=1, context=1, tensor=1 does not fit 8 devices"):
        compile_plan(tiny("dit", data=3), CPUS, vae=VAE)


@pytest.mark.parametrize("what", ["sample", "denoise", "decode"])
def test_an_autoencoder_has_no_sampler(what):
    run = tiny("vae")
    with pytest.raises(ValueError, match="an autoencoder's configuration has no sampler"):
        build_program(what, run, make_mesh(run.mesh))


def test_a_crash_of_the_compiler_is_a_runtime_error(monkeypatch):
    def crash(*args, **kwargs):
        return subprocess.CompletedProcess(args, -6, "", "first\nCheck failed: internal error\n")

    monkeypatch.setattr(subprocess, "run", crash)
    with pytest.raises(RuntimeError, match=r"the compiler for cpu:8 failed \(signal 6\): Check failed"):
        compile_plan(tiny("dit"), CPUS, vae=VAE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("quickstart.py:dit", {"data": 4}),
        ("footage.py:dit", {"fsdp": 2, "context": 2}),
    ],
)
def test_the_smallest_configurations_compile_for_a_tpu(tpu_compiler, name, sizes):
    file = Path(__file__).parents[2] / "configs" / name
    run = dataclasses.replace(load(str(file)), mesh=MeshConfig(**sizes))
    vae = load(str(file).replace(":dit", ":vae"))
    plan = compile_plan(run, Topology.parse("v5e:2x2"), vae=vae, name=name)
    sizes, seconds = plan.bytes_per_chip, plan.seconds
    assert plan.fits and 0 < sizes["total"] < plan.hbm_bytes
    assert plan.flops_per_step["hardware"] > plan.flops_per_step["model"] > 0
    assert 0 < seconds["step_full_overlap"] < seconds["step_no_overlap"]
    assert sum(plan.causes.values()) == pytest.approx(seconds["step_no_overlap"])
    assert 0 < plan.mfu["no_overlap"] < plan.mfu["full_overlap"] < 1
    assert any(line.startswith("fits 16.00 GiB") for line in format_lines(plan))


def test_the_plan_of_a_program_that_does_not_fit(tpu_compiler):
    run = load("configs/dit.py:L", ["--config.data.batch_size=4096"])
    plan = compile_plan(run, Topology.parse("v5e:2x2"), name="L")
    sizes = plan.bytes_per_chip
    over = sizes["total"] - plan.hbm_bytes
    assert not plan.fits and over > 0
    # Its operations are counted all the same: 24 layers store their inputs, of 1024 clips of 1280 tokens per chip.
    assert sizes["activations"] > 24 * 1024 * 1280 * 1024 * 2
    assert plan.flops_per_step["hardware"] > 4 / 3 * plan.flops_per_step["model"]
    assert any(line == f"does not fit 16.00 GiB: {over / 2**30:.2f} too many" for line in format_lines(plan))
