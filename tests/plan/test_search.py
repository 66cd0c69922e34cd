"""Searches with a fake compiler."""

import dataclasses
import math

import pytest

from videodit.config.io import load
from videodit.plan import search as module
from videodit.plan.plan_report import Plan
from videodit.plan.search import estimate, list_candidates, list_meshes, search
from videodit.plan.topology import Topology

WAN = load("configs/wan.py:14b")
GIB = 2**30
GRID = (21, 45, 80)  # tokens of 81 frames of 720p


def with_batch(size: int):
    return dataclasses.replace(WAN, data=dataclasses.replace(WAN.data, batch_size=size))


@pytest.mark.parametrize("name", ["v5p:8x8x8", "tpu7x:4x4x4", "2*v5e:16x16"])
def test_every_mesh_multiplies_to_the_devices_and_divides_batch_heads_and_slices(name):
    topology, run, meshes = Topology.parse(name), with_batch(64), set()
    for mesh in list_meshes(run, topology):
        assert math.prod((mesh.data, mesh.fsdp, mesh.context, mesh.tensor)) == topology.num_devices
        assert run.data.batch_size % (mesh.data * mesh.fsdp) == 0
        assert run.model.num_heads % mesh.tensor == 0
        assert mesh.data % topology.slices == 0
        meshes.add(mesh)
    assert len(meshes) > 10


def test_candidates_have_the_fewest_micro_batches_that_seem_to_fit():
    topology = Topology.parse("v5p:4x4x4")
    run = with_batch(64)
    for candidate in list_candidates(run, topology):
        micro_batches = candidate.run.optim.micro_batches
        clips = run.data.batch_size // (candidate.run.mesh.data * candidate.run.mesh.fsdp)
        assert clips % micro_batches == 0
        if candidate.memory > topology.chip.hbm_bytes:
            assert micro_batches == clips
        elif micro_batches > 1:  # fewer do not fit
            fewer = max(n for n in range(1, micro_batches) if clips % n == 0)
            optim = dataclasses.replace(candidate.run.optim, micro_batches=fewer)
            larger = estimate(dataclasses.replace(candidate.run, optim=optim), topology, GRID)
            assert larger.memory > topology.chip.hbm_bytes


def test_the_estimate_of_memory_is_near_the_compiler_s():
    """`videodit plan` for configs/wan.py:14b without EMA, on 4 v5p with context=4: 75.4 GiB."""
    run = dataclasses.replace(with_batch(1), ema=0.0)
    run = dataclasses.replace(run, mesh=dataclasses.replace(run.mesh, data=1, fsdp=1, context=4))
    assert estimate(run, Topology.parse("v5p:2x2x1"), GRID).memory == pytest.approx(75.4 * GIB, rel=0.2)


def fake_compiler(sizes):
    """Return a compiler that reports these GiB per remat policy, and the list of runs that it is called with."""
    compiled = []

    def compile_plan(run, topology, what, vae, *, name):
        compiled.append(run)
        size, room = int(sizes[run.model.remat] * GIB), topology.chip.hbm_bytes
        fits = size <= room
        seconds = estimate(run, topology, GRID).seconds
        mesh = {key: getattr(run.mesh, key) for key in ("data", "fsdp", "context", "tensor", "ulysses")}
        return Plan(
            config=name,
            what=what,
            topology=topology.name,
            chips=topology.num_chips,
            mesh=mesh,
            batch=run.data.batch_size,
            tokens_per_clip=32_760,
            micro_batches=run.optim.micro_batches,
            remat=run.model.remat,
            fits=fits,
            hbm_bytes=room,
            bytes_per_chip={"total": size},
            compile_seconds=1.0,
            flops_per_step={"model": 1.0, "hardware": 1.0},
            collective_bytes_per_step={},
            seconds={"step_no_overlap": seconds},
            mfu={"no_overlap": 0.5, "full_overlap": 0.6},
        )

    return compile_plan, compiled


def test_a_search_respects_its_limit_and_ranks_by_time(monkeypatch):
    compile_plan, compiled = fake_compiler(dict.fromkeys(module.STORED_VALUES, 50.0))
    monkeypatch.setattr(module, "compile_plan", compile_plan)
    messages = []
    plans = search(with_batch(64), Topology.parse("v5p:4x4x4"), name="wan", most=4, message=messages.append)
    assert len(compiled) == len(plans) == 4 and len(messages) == 5
    times = [plan.seconds["step_no_overlap"] for plan in plans]
    assert times == sorted(times)
    kinds = {(run.model.remat, run.mesh.context, run.mesh.tensor) for run in compiled}
    assert len(kinds) == 4


def test_plans_that_do_not_fit_correct_the_estimates(monkeypatch):
    compile_plan, compiled = fake_compiler({"none": 900.0, "dots": 900.0, "attention": 60.0, "full": 50.0})
    monkeypatch.setattr(module, "compile_plan", compile_plan)
    plans = search(with_batch(64), Topology.parse("v5p:4x4x4"), most=6)
    assert [plan.fits for plan in plans] == sorted((plan.fits for plan in plans), reverse=True)
    assert plans[0].remat == "attention"
    tries = [run.model.remat for run in compiled]
    assert tries.count("none") <= 2 and tries.count("dots") <= 2


def test_if_nothing_fits_the_smallest_is_compiled(monkeypatch):
    compile_plan, compiled = fake_compiler(dict.fromkeys(module.STORED_VALUES, 900.0))
    monkeypatch.setattr(module, "compile_plan", compile_plan)
    plans = search(with_batch(4), Topology.parse("v5e:2x2"), most=3)
    assert len(compiled) == 3 and not any(plan.fits for plan in plans)
    assert compiled[0].model.remat == "full"


def test_a_failed_candidate_does_not_end_the_search(monkeypatch):
    compile_plan, compiled = fake_compiler(dict.fromkeys(module.STORED_VALUES, 50.0))

    def compile_or_fail(run, *args, **options):
        plan = compile_plan(run, *args, **options)
        if len(compiled) != 2:
            raise (RuntimeError if len(compiled) == 1 else ValueError)("it failed")
        return plan

    monkeypatch.setattr(module, "compile_plan", compile_or_fail)
    messages = []
    assert len(search(with_batch(64), Topology.parse("v5p:4x4x4"), most=3, message=messages.append)) == 1
    assert len(compiled) == 3 and [line.endswith(": it failed") for line in messages] == [False, True, False, True]
    with pytest.raises(ValueError, match="it failed"):
        search(with_batch(64), Topology.parse("v5p:4x4x4"), most=2)


def test_meshes_divide_the_width():
    run = with_batch(64)
    odd = dataclasses.replace(run, model=dataclasses.replace(run.model, width=5200))
    meshes = list(module._divide_devices(odd, Topology.parse("v5p:4x4x4")))
    assert meshes and all(5200 % (mesh.fsdp * mesh.context) == 0 for mesh in meshes)


def test_a_search_is_for_training_transformers_on_tpus():
    with pytest.raises(ValueError, match="a search is for training a transformer on TPUs"):
        search(load("configs/vae.py"), Topology.parse("v5e:2x2"))
    with pytest.raises(ValueError, match="no mesh of 512 devices divides a batch of 3"):
        search(with_batch(3), Topology.parse("2*v5e:16x16"))
