from dataclasses import replace

import pytest
from ml_collections import ConfigDict

from videodit.config.data import DataConfig
from videodit.config.io import from_config_dict, from_json, load, to_config_dict, to_json
from videodit.config.optim import OptimConfig
from videodit.config.run import DiTRun, VAERun
from videodit.diffusion.objective import ObjectiveConfig
from videodit.diffusion.timesteps import TimestepConfig
from videodit.models.dit import DiTConfig
from videodit.models.text import TextConfig
from videodit.models.vae import VAEConfig
from videodit.nn.attention_spec import AttentionSpec

DATA = DataConfig(path="data", frames=5, height=16, width=16, fps=8.0, batch_size=4)
VAE_RUN = VAERun(steps=100, data=DATA, model=VAEConfig(channels=(8, 8), strides=((2, 2),), time_kernel=(3, 1)))
DIT_RUN = DiTRun(
    steps=100,
    data=replace(DATA, eval_path="held-out"),
    model=DiTConfig(depth=2, width=32, num_heads=2, mlp_width=64, text_width=16, rope_split=(4, 6, 6)),
    text=TextConfig(vocab_size=64, width=16, depth=1, num_heads=2, head_dim=8, mlp_width=32),
    tokenizer="tokenizer.model",
    vae="runs/vae",
    objective=ObjectiveConfig(timesteps=TimestepConfig(base_tokens=64)),
)

CONFIG = """
from videodit.diffusion.objective import ObjectiveConfig
from videodit.diffusion.timesteps import TimestepConfig
from tests.config.test_io import DIT_RUN, VAE_RUN
from videodit.config.io import to_config_dict

def get_config(variant="dit"):
    runs = {"vae": VAE_RUN, "dit": DIT_RUN}
    if variant not in runs:
        raise ValueError(f"there are the variants vae and dit, not '{variant}'")
    return to_config_dict(runs[variant])
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return str(path)


@pytest.mark.parametrize("run", [VAE_RUN, DIT_RUN])
def test_a_run_survives_both_of_its_formats(run):
    assert from_config_dict(to_config_dict(run)) == run
    assert from_json(to_json(run)) == run


def test_a_config_dict_is_locked_and_its_empty_keys_can_be_set():
    config = to_config_dict(VAE_RUN)
    with pytest.raises(AttributeError, match="chanels"):
        config.model.chanels = (8, 8)
    with pytest.raises(TypeError):
        config.steps = "many"
    config.data.eval_path = "here"
    config.model.strides = ((1, 2),)
    run = from_config_dict(config)
    assert run.data.eval_path == "here"
    assert run.model.strides == ((1, 2),)


def test_a_file_a_variant_and_overrides_make_a_run(config):
    assert load(config) == DIT_RUN
    assert load(f"{config}:vae") == VAE_RUN
    flags = [
        "--config.model.depth=12",
        "--config.model.patch=(1,4,4)",
        "--config.optim.lr=1",
        "--config.optim.schedule",
        "wsd",
        "--config.sampler.base_tokens=32",
        "--config.objective.timesteps.stratified=false",
    ]
    run = load(config, flags)
    assert (run.model.depth, run.model.patch, run.optim.lr, run.optim.schedule) == (12, (1, 4, 4), 1.0, "wsd")
    assert run.sampler.base_tokens == 32
    assert not run.objective.timesteps.stratified
    assert load(config, ["--config.steps=5", "--config.steps=6"]).steps == 6, "the last one counts"


def test_attention_is_set_by_flags(config):
    flags = ["kind=frame_causal", "window=4", "sinks=1"]
    spec = load(config, [f"--config.model.attention.{flag}" for flag in flags]).model.attention
    assert spec == AttentionSpec(kind="frame_causal", window=4, sinks=1)
    spec = load(config, ["--config.model.attention.pattern=('spatial','full')"]).model.attention
    assert spec == AttentionSpec(pattern=("spatial", "full")) and not spec.is_full
    packed = ["--config.model.attention.kind=spatial", "--config.data.packing.length=64"]
    with pytest.raises(ValueError, match=r"packed sequences have full attention only: a mask \(spatial\)"):
        load(config, packed)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.model.dept=12", r"^unknown key 'model.dept': did you mean 'model.depth'\?$"),
        ("--config.modl.depth=12", r"^unknown key 'modl': did you mean 'model'\?$"),
        ("--config.model.depth.x=1", "^unknown key 'model.depth.x': 'model.depth' is no JSON object$"),
        ("--config.model=12", "^--config.model is a JSON object: set one of its keys, like --config.model.[a-z_]+$"),
        ("--config.model.depth=deep", "^model.depth must be an int, not 'deep'$"),
        ("--config.model.depth=1.5", "^model.depth must be an int, not '1.5'$"),
        ("--config.optim.lr=fast", "^optim.lr must be a float, not 'fast'$"),
        (
            "--config.objective.timesteps.stratified=maybe",
            "^objective.timesteps.stratified must be true or false, not 'maybe'$",
        ),
        (
            "--config.objective.timesteps.base_tokens=few",
            "^objective.timesteps.base_tokens must be an int or None, not 'few'$",
        ),
        ("--config.model.patch=(1,2)", r"^model.patch must be a tuple of 3 \(an int, an int, an int\), not \(1, 2\)$"),
        ("--config.model.patch=(1,2", r"^model.patch must be a tuple of 3 \(an int, an int, an int\), not '\(1,2'$"),
        ("--config.optim.schedule=cosin", "^optim.schedule must be one of .*, not 'cosin': did you mean 'cosine'"),
        ("--config.model.attention.kind=causal", "^model.attention: .*causal.*did you mean.*frame_causal"),
        ("--config.model.width=30", "^model: width 30 does not split into 2 heads of an even size$"),
        ("--config.data.frames=0", "^data: frames is 0: it must be from 1 to 16777216$"),
        ("--config.optim.warmup=200", "^200 steps of warm-up and 0 of decay do not fit in a run of 100 steps$"),
        ("--config.kind=gan", "^kind must be 'vae' or 'dit', not 'gan'$"),
        ("--confg.steps=3", "confg.steps"),
        ("steps=3", "^'steps=3' is not an override: write --config.KEY=VALUE$"),
        ("--config.steps", "Missing value for flag --config.steps"),
    ],
)
def test_a_wrong_override_raises_a_suggestion(config, flag, message):
    with pytest.raises(ValueError, match=message) as raised:
        load(config, [flag])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"broken.py has no function get_config\(variant\)"),
        ("x = (1", r"broken.py does not run: SyntaxError: '\(' was never closed"),
        ("import nowhere", "broken.py does not run: ModuleNotFoundError: No module named 'nowhere'"),
        ("def get_config(): return 3", "get_config of .*broken.py must return a ConfigDict .* not 3"),
        ("def get_config(): return 1 / 0", "broken.py cannot be configured: ZeroDivisionError"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, message):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load(str(path))


def test_missing_files_and_variants_are_named(config, tmp_path):
    with pytest.raises(ValueError, match=r"no configuration file .*confg.py: did you mean config.py\?"):
        load(str(tmp_path / "confg.py"))
    with pytest.raises(ValueError, match=r"config.py:gan cannot be configured: there are the variants vae and dit"):
        load(f"{config}:gan")


def test_what_a_config_dict_lacks_or_has_too_much_is_named():
    tree = to_config_dict(VAE_RUN).to_dict()
    with pytest.raises(ValueError, match=r"unknown key 'kll': did you mean 'kl'\?"):
        from_config_dict(ConfigDict({**tree, "kll": 1.0}))
    del tree["steps"]
    with pytest.raises(ValueError, match="key 'steps' is missing: it needs an int"):
        from_config_dict(ConfigDict(tree))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"eval_every": -1}, "eval_every is -1"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"optim": OptimConfig(micro_batches=3)}, "batch_size 4 does not divide into 3 micro_batches"),
        ({"data": replace(DATA, frames=4)}, "4 frames"),
    ],
)
def test_a_run_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(VAE_RUN, **changes)


def test_shipped_configurations_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load("configs/quickstart.py:vae").kind == "vae"
    with pytest.raises(ValueError, match=r"no configuration file configs/quickstrat.py: did you mean quickstart.py\?"):
        load("configs/quickstrat.py")
    with pytest.raises(ValueError, match=r"no configuration file quickstart.py"):
        load("quickstart.py:vae")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.py").write_text("def get_config(variant): raise ValueError('my own')")
    with pytest.raises(ValueError, match="my own"):
        load("configs/quickstart.py:vae")
