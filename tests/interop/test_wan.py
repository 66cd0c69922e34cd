"""Wan's transformers: outputs, a training step's loss and gradients, and both layouts of names."""

import dataclasses
import json
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests.interop.reference import load_model, relative_error
from videodit.diffusion.objective import ObjectiveConfig, compute_loss, mean_per_clip
from videodit.interop import mapping, wan
from videodit.interop.kinds import KINDS
from videodit.interop.parts import find_parts
from videodit.interop.safetensors import INDEX, Tensor
from videodit.models.conditioning import IMAGE, Conditioning
from videodit.models.dit import DiT
from videodit.models.flops import dit_cost
from videodit.nn.state import abstract_arrays, abstract_module
from videodit.parallel.mesh import MeshConfig, make_mesh


def load_dit(case):
    cfg = wan.parse_config(case.fields)
    return load_model(lambda: DiT(cfg, rngs=nnx.Rngs(0)), wan.build_rules(cfg), case.weights)


def arguments(case):
    text = jnp.asarray(case.io["in.encoder_hidden_states"])
    image = case.io.get("in.encoder_hidden_states_image")
    # The reference has the two images of a clip one after the other in the batch.
    image = None if image is None else jnp.asarray(image.reshape(len(text), -1, image.shape[-1]))
    time = jnp.asarray(case.io["in.timestep"] / 1000)
    inputs = {} if image is None else {IMAGE: image}
    return (
        case.channels_last("in.hidden_states"),
        time,
        Conditioning(text, jnp.ones(text.shape[:2], bool), None, inputs),
    )


@pytest.mark.parametrize("name", ["wan_t2v", "wan_i2v", "wan_flf2v", "wan22_ti2v"])
def test_reference_weights_give_reference_velocities(golden, name):
    case = golden(name)
    velocity = nnx.jit(DiT.__call__)(load_dit(case), *arguments(case))
    assert relative_error(velocity, case.channels_last("out.sample")) < 1e-5


def test_a_training_step_is_the_reference_s(golden):
    """Loss, every gradient, and eight steps of AdamW with clipping."""
    case, weights = golden("wan_t2v_train"), golden("wan_t2v")
    graph, state = nnx.split(load_dit(weights))
    text = jnp.asarray(case.io["in.encoder_hidden_states"])
    data, noise, t = case.channels_last("in.x0"), case.channels_last("in.noise"), jnp.asarray(case.io["in.t"])

    def loss(state):
        model = nnx.merge(graph, state)

        def velocity(x, t):
            return model(x, t, Conditioning(text, jnp.ones(text.shape[:2], bool)))

        return compute_loss(ObjectiveConfig(), velocity, data, noise, t, mean_per_clip).mean()

    gradient = jax.jit(jax.value_and_grad(loss))
    value, grads = gradient(state)
    assert relative_error(value, case.io["out.loss"]) < 1e-5
    rules = wan.build_rules(wan.parse_config(weights.fields))
    for name, grad in mapping.export(rules, nnx.to_pure_dict(grads)).items():
        assert relative_error(grad.compute(), case.io[f"grad.{name}"]) < 1e-3, name

    settings = case.fields["adamw"]
    (b1, b2), lr, decay = settings["betas"], settings["lr"], settings["weight_decay"]
    optimizer = optax.chain(
        optax.clip_by_global_norm(settings["clip_global_norm"]),
        optax.adamw(lr, b1, b2, settings["eps"], weight_decay=decay),
    )

    @jax.jit
    def update(state, moments, grads):
        updates, moments = optimizer.update(grads, moments, state)
        return optax.tree.norm(grads), optax.apply_updates(state, updates), moments

    moments, losses, norms = jax.jit(optimizer.init)(state), [], []
    for _ in case.io["out.adamw_grad_norms"]:
        value, grads = gradient(state)
        norm, state, moments = update(state, moments, grads)
        losses.append(value)
        norms.append(norm)
    losses.append(gradient(state)[0])
    np.testing.assert_allclose(losses, case.io["out.adamw_losses"], rtol=1e-4)
    np.testing.assert_allclose(norms, case.io["out.adamw_grad_norms"], rtol=1e-3)
    np.testing.assert_allclose(jax.jit(optax.tree.norm)(state), case.io["out.adamw_param_norm"], rtol=1e-5)


ORIGINAL_NAMES = {
    "": "patch_embedding.weight patch_embedding.bias head.modulation img_emb.emb_pos",
    "head.head text_embedding.0 text_embedding.2 time_embedding.0 time_embedding.2 time_projection.1": "weight bias",
    "img_emb.proj.0 img_emb.proj.1 img_emb.proj.3 img_emb.proj.4": "weight bias",
}
ORIGINAL_BLOCK_NAMES = {
    "": "modulation cross_attn.norm_k_img.weight",
    "norm3 ffn.0 ffn.2 cross_attn.k_img cross_attn.v_img": "weight bias",
    "self_attn.q self_attn.k self_attn.v self_attn.o": "weight bias",
    "cross_attn.q cross_attn.k cross_attn.v cross_attn.o": "weight bias",
    "self_attn.norm_q self_attn.norm_k cross_attn.norm_q cross_attn.norm_k": "weight",
}


def list_names(table):
    for parts, ends in table.items():
        yield from (f"{part}.{end}".lstrip(".") for part in parts.split(" ") for end in ends.split(" "))


def test_original_names_map_to_diffusers_names(golden):
    """Original names, with those of the last-frame branch, map one to one to diffusers' names."""
    weights = golden("wan_flf2v").weights
    blocks = [f"blocks.{layer}.{name}" for layer in range(2) for name in list_names(ORIGINAL_BLOCK_NAMES)]
    names = [*list_names(ORIGINAL_NAMES), *blocks]
    assert {wan.rename_original(name) for name in names} == weights.keys() and len(names) == len(weights)
    assert [wan.rename_original(name) for name in weights] == list(weights)


def test_parameters_and_products_are_those_counted(golden):
    for name in ("wan_t2v", "wan_i2v", "wan_flf2v"):
        cfg = wan.parse_config(golden(name).fields)
        params = sum(np.prod(tensor.shape) for tensor in golden(name).weights.values())
        assert dit_cost(cfg, 18, 512, 18).params == params
    assert wan.parse_config(wan.export_config(cfg)) == cfg
    more = (
        dit_cost(cfg, 18, 512, 18).macs
        - dit_cost(dataclasses.replace(cfg, image_width=None, image_tokens=0), 18, 512).macs
    )
    width, size = cfg.width, cfg.image_width
    assert more == 18 * size * (size + width) + cfg.depth * (2 * 18 * width**2 + 2 * 18 * 18 * width)


@pytest.mark.slow
def test_an_image_adds_nothing_at_first_and_needs_a_model_that_knows_of_one(golden):
    case = golden("wan_i2v")
    cfg = wan.parse_config(case.fields)
    plain = dataclasses.replace(cfg, image_width=None, in_channels=36)
    args = arguments(case)
    with pytest.raises(ValueError, match="takes no conditioning input 'image', only text"):
        DiT(plain, rngs=nnx.Rngs(0))(*args)
    fresh = DiT(cfg, rngs=nnx.Rngs(0))
    fresh.head.out.kernel[...] += 1.0
    fresh.stack.blocks.cross_attention.out.kernel[...] += 0.1
    x, t, conditioning = args
    np.testing.assert_array_equal(fresh(*args), fresh(x, t, conditioning.with_inputs({})))


def test_options_that_are_not_wan_s_are_refused(golden):
    with pytest.raises(ValueError, match="qk_norm must be 'rms_norm_across_heads', not 'rms_norm'"):
        wan.parse_config(golden("wan_t2v").fields | {"qk_norm": "rms_norm"})


def test_without_a_norm_before_the_text_there_are_no_weights_of_one(golden):
    case = golden("wan_t2v")
    cfg = wan.parse_config(case.fields | {"cross_attn_norm": False})
    assert wan.parse_config(wan.export_config(cfg)) == cfg and not cfg.cross_attn_norm
    remaining = {name: x for name, x in case.weights.items() if ".norm2." not in name}
    assert load_model(lambda: DiT(cfg, rngs=nnx.Rngs(0)), wan.build_rules(cfg), remaining)


def test_the_14b_release_is_checked_by_its_headers(tmp_path, monkeypatch):
    """14 billion parameters in three sparse files, sharded over eight devices: no byte is read."""
    kind = KINDS["wan2.1-t2v-14b"]
    cfg = wan.parse_config(wan.COMMON | kind.parts["transformer"])
    mesh = make_mesh(MeshConfig(data=1, fsdp=8))
    ours = mapping.flatten(abstract_arrays(abstract_module(lambda rngs: DiT(cfg, rngs=rngs)), mesh)[1])
    rules = [(rule, ours[rule.ours].shape) for rule in wan.build_rules(cfg)]
    names = {name: rule.their_shape(shape) for rule, shape in rules for name in rule.their_names(shape)}
    files = write_sparse(tmp_path, names, 3)
    monkeypatch.setattr(Tensor, "read", lambda self: pytest.fail("a tensor was read"))
    part = find_parts(kind, tmp_path)["transformer"]
    assert len(part.files) == len(files) == 3 and len(part.weights) == len(names) == 1095
    count = sum(np.prod(x.shape, dtype=np.int64) for x in ours.values())
    local = sum(np.prod(x.sharding.shard_shape(x.shape), dtype=np.int64) for x in ours.values())
    assert count == dit_cost(cfg, 1, 1).params == 14_288_491_584 and local < count / 7.9
    os.truncate(files[-1], files[-1].stat().st_size - 1)
    with pytest.raises(ValueError, match="is truncated"):
        find_parts(kind, tmp_path)


def write_sparse(folder, names, count):
    """Write sparse files of bfloat16 tensors without any content, and their index; return the files."""
    files = [folder / f"model-{at}.safetensors" for at in range(count)]
    file_names = {name: files[at * count // len(names)].name for at, name in enumerate(names)}
    for file in files:
        header, end = {}, 0
        for name, shape in names.items():
            if file_names[name] == file.name:
                span = [end, end := end + 2 * math.prod(shape)]
                header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": span}
        text = json.dumps(header).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text)
        os.truncate(file, 8 + len(text) + end)
    (folder / f"model{INDEX}").write_text(json.dumps({"weight_map": file_names}))
    return files
