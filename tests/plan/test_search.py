"""What a search tries, and how it goes on from what it learns; the compiler is played by a function."""

import dataclasses
import math

import pytest

from videodit.config.io import load
from videodit.plan import search as module
from videodit.plan.plan_report import Plan
from videodit.plan.search import candidates, guess, meshes, search
from videodit.plan.topology import Topology

WAN = load("configs/wan.py:14b")
GIB = 2**30


def with_batch(size: int):
    return dataclasses.replace(WAN, data=dataclasses.replace(WAN.data, batch_size=size))


@pytest.mark.parametrize("name", ["v5p:8x8x8", "tpu7x:4x4x4", "2*v5e:16x16"])
def test_every_mesh_multiplies_to_the_devices_and_divides_batch_heads_and_slices(name):
    topology, run, found = Topology.parse(name), with_batch(64), set()
    for mesh in meshes(run, topology):
        assert math.prod((mesh.data, mesh.fsdp, mesh.context, mesh.tensor)) == topology.num_devices
        assert run.data.batch_size % (mesh.data * mesh.fsdp) == 0
        assert run.model.num_heads % mesh.tensor == 0
        assert mesh.data % topology.slices == 0
        found.add(mesh)
    assert len(found) > 10


def test_candidates_take_the_fewest_parts_that_seem_to_fit():
    topology = Topology.parse("v5p:4x4x4")
    run = with_batch(64)
    for candidate in candidates(run, topology):
        parts = candidate.run.optim.micro_batches
        rows = run.data.batch_size // (candidate.run.mesh.data * candidate.run.mesh.fsdp)
        assert rows % parts == 0
        if candidate.memory > topology.chip.hbm_bytes:
            assert parts == rows
        elif parts > 1:  # in fewer it would not
            fewer = max(n for n in range(1, parts) if rows % n == 0)
            optim = dataclasses.replace(candidate.run.optim, micro_batches=fewer)
            larger = guess(dataclasses.replace(candidate.run, optim=optim), topology, 75_600)
            assert larger.memory > topology.chip.hbm_bytes


def test_the_guess_of_memory_is_near_what_the_compiler_says():
    """As `videodit plan` printed for configs/wan.py, without average: 14b float32 on 4 v5p, context=4: 75.4 GiB."""
    run = dataclasses.replace(with_batch(1), ema=0.0)
    run = dataclasses.replace(run, mesh=dataclasses.replace(run.mesh, data=1, fsdp=1, context=4))
    assert guess(run, Topology.parse("v5p:2x2x1"), 75_600).memory == pytest.approx(75.4 * GIB, rel=0.2)


def played(sizes):
    """A compiler that knows how much each remat policy takes, and notes what it was asked."""
    asked = []

    def compile_plan(run, topology, what, vae, *, name):
        asked.append(run)
        size, room = int(sizes[run.model.remat] * GIB), topology.chip.hbm_bytes
        fits = size <= room
        seconds = guess(run, topology, 75_600).seconds
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

    return compile_plan, asked


def test_a_search_compiles_no_more_than_it_may_and_ranks_by_time(monkeypatch):
    compile_plan, asked = played(dict.fromkeys(module.KEPT, 50.0))
    monkeypatch.setattr(module, "compile_plan", compile_plan)
    told = []
    plans = search(with_batch(64), Topology.parse("v5p:4x4x4"), name="wan", most=4, message=told.append)
    assert len(asked) == len(plans) == 4 and len(told) == 5
    times = [plan.seconds["step_no_overlap"] for plan in plans]
    assert times == sorted(times)
    kinds = {(run.model.remat, run.mesh.context, run.mesh.tensor) for run in asked}
    assert len(kinds) == 4


def test_what_does_not_fit_comes_last_and_its_like_are_not_tried_again(monkeypatch):
    compile_plan, asked = played({"none": 900.0, "dots": 900.0, "attention": 60.0, "full": 50.0})
    monkeypatch.setattr(module, "compile_plan", compile_plan)
    plans = search(with_batch(64), Topology.parse("v5p:4x4x4"), most=6)
    assert [plan.fits for plan in plans] == sorted((plan.fits for plan in plans), reverse=True)
    assert plans[0].remat == "attention"
    tries = [run.model.remat for run in asked]
    assert tries.count("none") <= 2 and tries.count("dots") <= 2


def test_where_nothing_fits_the_smallest_is_tried(monkeypatch):
    compile_plan, asked = played(dict.fromkeys(module.KEPT, 900.0))
    monkeypatch.setattr(module, "compile_plan", compile_plan)
    plans = search(with_batch(4), Topology.parse("v5e:2x2"), most=3)
    assert len(asked) == 3 and not any(plan.fits for plan in plans)
    assert asked[0].model.remat == "full"


def test_a_compiler_that_gives_up_on_one_candidate_does_not_end_the_search(monkeypatch):
    compile_plan, asked = played(dict.fromkeys(module.KEPT, 50.0))

    def sometimes(run, *args, **options):
        plan = compile_plan(run, *args, **options)
        if len(asked) != 2:
            raise (RuntimeError if len(asked) == 1 else ValueError)("it died")
        return plan

    monkeypatch.setattr(module, "compile_plan", sometimes)
    told = []
    assert len(search(with_batch(64), Topology.parse("v5p:4x4x4"), most=3, message=told.append)) == 1
    assert len(asked) == 3 and [line.endswith(": it died") for line in told] == [False, True, False, True]
    with pytest.raises(ValueError, match="it died"):
        search(with_batch(64), Topology.parse("v5p:4x4x4"), most=2)


def test_no_mesh_cuts_the_width_unevenly():
    run = with_batch(64)
    odd = dataclasses.replace(run, model=dataclasses.replace(run.model, width=5200))
    found = list(module._meshes(odd, Topology.parse("v5p:4x4x4")))
    assert found and all(5200 % (mesh.fsdp * mesh.context) == 0 for mesh in found)


def test_a_search_is_for_training_transformers_on_tpus():
    with pytest.raises(ValueError, match="a search is for training a transformer on TPUs"):
        search(load("configs/vae.py"), Topology.parse("v5e:2x2"))
    with pytest.raises(ValueError, match="no mesh of 512 devices divides a batch of 3"):
        search(with_batch(3), Topology.parse("2*v5e:16x16"))
