"""The planner's program is the trainer's: its arguments are those of the compiled step, its FLOPs those counted."""

import dataclasses

import jax
import pytest

from tests.cli import releases
from tests.cli.tiny import get_config
from videodit.config.io import from_config_dict
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.plan.hlo_counts import count_operations
from videodit.plan.program import build_train_program, bytes_per_device


def test_argument_bytes_equal_those_of_the_executable():
    """The autoencoder's step; the transformer's is in test_compile.py."""
    run = dataclasses.replace(from_config_dict(get_config("vae")), mesh=MeshConfig(data=8))
    devices = make_mesh(run.mesh, heads=run.heads)
    program = build_train_program(run, devices)
    compiled = program.compile(devices)
    arguments = jax.tree.leaves(compiled.args_info)
    # The compiler removes unused arguments, like a frozen autoencoder's weights if batches hold latents.
    read = [
        x for x, used in zip(jax.tree.leaves(program.arguments), _used(compiled, len(arguments)), strict=True) if used
    ]
    assert bytes_per_device(read) == compiled.memory_analysis().argument_size_in_bytes


def _used(compiled, arguments):
    kept_indices = compiled._executable._kept_var_idx
    return [index in kept_indices for index in range(arguments)]


def test_flops_of_a_step_are_those_of_the_configuration():
    run = from_config_dict(get_config("dit"))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    program = build_train_program(run, mesh)
    counted = count_operations(program.compile(mesh).as_text()).matmul_flops
    model = run.data.batch_size * program.task.flops_per_clip
    assert counted == pytest.approx(model, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("adapters", [True, False])
def test_flops_of_adapters(adapters):
    """With adapters and without, the model's FLOPs are those that XLA counts."""
    run = from_config_dict(get_config("lora"))
    wide = dataclasses.replace(run.model, depth=4, width=64, mlp_width=256)
    mesh, vae = make_mesh(MeshConfig(), jax.devices()[:1]), releases.VAE
    lora = run.lora if adapters else None
    program = build_train_program(dataclasses.replace(run, model=wide, lora=lora), mesh, vae)
    counted = count_operations(program.compile(mesh).as_text()).matmul_flops
    assert counted == pytest.approx(program.model_flops, rel=0.1)
