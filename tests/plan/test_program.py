"""The planner's program is the trainer's: its arguments are what the compiled step takes, its FLOPs what is counted."""

import dataclasses

import jax
import pytest

from tests.cli import releases
from tests.cli.tiny import get_config
from videodit.config.io import from_config_dict
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.plan.count import count
from videodit.plan.program import bytes_per_device, train_program


def test_what_a_device_holds_is_what_the_compiled_step_takes():
    """The autoencoder's step; the transformer's is in test_compile.py."""
    run = dataclasses.replace(from_config_dict(get_config("vae")), mesh=MeshConfig(data=8))
    devices = make_mesh(run.mesh, heads=run.heads)
    program = train_program(run, devices)
    compiled = program.compile(devices)
    taken = jax.tree.leaves(compiled.args_info)
    # What the step does not read it is not given: the frozen autoencoder's weights, where batches hold latents.
    kept = [x for x, used in zip(jax.tree.leaves(program.arguments), _used(compiled, len(taken)), strict=True) if used]
    assert bytes_per_device(kept) == compiled.memory_analysis().argument_size_in_bytes


def _used(compiled, arguments):
    kept = compiled._executable._kept_var_idx
    return [index in kept for index in range(arguments)]


def test_flops_of_a_step_are_those_of_the_configuration():
    run = from_config_dict(get_config("dit"))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    program = train_program(run, mesh)
    counted = count(program.compile(mesh).as_text()).matmul_flops
    model = run.data.batch_size * program.task.flops_per_clip
    assert counted == pytest.approx(model, rel=0.05)


@pytest.mark.slow
def test_flops_of_adapters_are_those_that_lead_to_them():
    """What is trained of a run with adapters is not what is trained of one without; both are what XLA counts."""
    run = from_config_dict(get_config("lora"))
    wide = dataclasses.replace(run.model, depth=4, width=64, mlp_width=256)
    mesh, vae = make_mesh(MeshConfig(), jax.devices()[:1]), releases.VAE
    for lora in (run.lora, None):
        program = train_program(dataclasses.replace(run, model=wide, lora=lora), mesh, vae)
        counted = count(program.compile(mesh).as_text()).matmul_flops
        assert counted == pytest.approx(program.model_flops, rel=0.1)
