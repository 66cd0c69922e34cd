"""`videodit.load`: the few lines of a notebook, which give the same clips as `videodit sample`."""

import json
from pathlib import Path

import av
import jax
import numpy as np
import pytest
from PIL import Image
from videodit_data.boundary.terminal import SafeConsole

import videodit
from tests.cli.test_cli import run
from tests.inference.tiny_models import PROMPTS, write_text_to_video
from videodit.evals.evaluate import evaluate
from videodit.inference import pipeline
from videodit.models.pixels import to_float, to_uint8


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return write_text_to_video(tmp_path_factory.mktemp("models") / "dit")


@pytest.fixture(scope="module")
def model(workdir):
    return videodit.load(str(workdir))


def test_a_prompt_makes_a_video_and_a_list_of_prompts_a_list(model):
    one, many = model.generate(PROMPTS[0], steps=2, seed=3), model.generate(PROMPTS, steps=2, seed=3)
    assert one.array.shape == (9, 16, 16, 3) and one.array.dtype == np.uint8 and one.fps == 8.0
    assert np.abs(many[0].array.astype(int) - one.array).max() <= 1, "its noise is that of its index and the seed"
    assert (many[1].array != one.array).any()
    assert (model.generate(PROMPTS[0], steps=2, seed=4).array != one.array).any()
    assert model.generate([]) == []


def test_options_reach_the_sampler_and_the_provenance(model):
    video = model.generate(PROMPTS[0], frames=5, height=16, width=32, fps=4, steps=3, solver="euler", guidance=2)
    assert video.array.shape == (5, 16, 32, 3) and video.fps == 4
    facts = video.provenance
    assert (facts["prompt"], facts["seed"], facts["sampler"]["steps"]) == (PROMPTS[0], 0, 3)
    assert (facts["sampler"]["solver"], facts["sampler"]["guidance"]) == ("euler", 2.0)
    assert json.loads(json.dumps(facts)) == json.loads(json.dumps(dict(facts))) and "jax" in facts["versions"]


@pytest.mark.parametrize("text", ["红色的圆", "שלום", "🦊", "красный круг"])
def test_a_prompt_of_which_nothing_is_known_is_refused(model, text):
    with pytest.raises(ValueError, match=f"knows no part of the prompt '{text}'"):
        model.generate([PROMPTS[0], text], steps=1)
    with pytest.raises(ValueError, match=f"knows no part of the negative prompt '{text}'"):
        model.generate(PROMPTS[0], negative_prompt=text, steps=1)


def test_what_is_not_known_of_a_prompt_is_a_warning(model, caplog):
    model.generate([f"{PROMPTS[0]} 红色", PROMPTS[1], ""], frames=1, steps=1)
    assert [record.getMessage() for record in caplog.records] == [
        f"The tokenizer does not know '红色' of the prompt '{PROMPTS[0]} 红色'.",
        "1 of 3 prompts are empty: each is sampled as a clip without a caption.",
    ]


def test_a_shape_is_compiled_once(workdir, monkeypatch):
    traces = []

    def count(*args, **options):
        traces.append(args)
        return generate(*args, **options)

    generate = pipeline.generate
    monkeypatch.setattr(pipeline, "generate", count)
    model = videodit.load(workdir)
    for seed in range(3):
        model.generate(PROMPTS[0], steps=2, seed=seed)
    assert len(traces) == 1
    model.generate(PROMPTS[1], steps=2, negative_prompt="green")
    assert len(traces) == 1, "neither prompts nor seeds are compiled in"
    model.generate(PROMPTS[0], steps=3)
    assert len(traces) == 2


@pytest.mark.parametrize(
    "options",
    [
        *({"frames": 0}, {"height": -16}, {"width": 10**12}, {"fps": 0}, {"fps": float("nan")}, {"batch": 0}),
        *({"steps": 10**9}, {"guidance": float("nan")}, {"tile": 0}, {"seed": 2**64}),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(model, options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=rf"^{name} is {value}: it must be from"):
        model.generate(PROMPTS[0], **{"steps": 2} | options)


def test_a_size_that_no_memory_holds_is_refused(model):
    with pytest.raises(ValueError, match=r"^9 frames of 160000 x 160000 are more than 4294967296 pixels"):
        model.generate(PROMPTS[0], height=160000, width=160000)


@pytest.mark.parametrize("name", ["os:system", "json:JSONDecoder"])
def test_what_is_no_metric_is_refused(model, tmp_path, name):
    with pytest.raises(ValueError, match=rf"^{name} is no metric"):
        evaluate(model.pipeline, tmp_path, tmp_path / "out", clips=1, seed=0, console=SafeConsole(), metrics=[name])


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png"])
def test_a_video_is_saved_as_the_command_saves_it(model, workdir, tmp_path, suffix):
    ours = model.generate(PROMPTS[0], steps=2, seed=5).save(str(tmp_path / f"ours{suffix}"))
    theirs = tmp_path / f"theirs{suffix}"
    options = ("--prompt", PROMPTS[0], "--steps", 2, "--seed", 5, "--out", theirs)
    assert run("sample", "--checkpoint", workdir, *options) == 0
    np.testing.assert_array_equal(frames(ours), frames(theirs))
    assert json.loads(ours.with_suffix(".json").read_text()) == json.loads(theirs.with_suffix(".json").read_text())


def frames(path: Path) -> np.ndarray:
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_encode_and_decode_are_the_autoencoder_s(model):
    video = np.random.default_rng(0).integers(0, 255, (2, 9, 16, 16, 3), np.uint8)
    vae = model.pipeline.vae
    latents = model.encode(video)
    expected = jax.jit(lambda x: vae.normalize(vae.encode(x)[0]))(to_float(video))
    np.testing.assert_allclose(latents, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.encode(video[0]), latents[0], rtol=1e-4, atol=1e-5)
    decoded = to_uint8(jax.device_get(jax.jit(lambda z: vae.decode(vae.denormalize(z)))(latents)))
    assert np.abs(model.decode(latents).astype(int) - decoded).max() <= 1
    assert model.decode(latents[0]).shape == video.shape[1:]
    with pytest.raises(ValueError, match="frames"):
        model.encode(video[:, :8])


def test_a_checkpoint_and_an_autoencoder_are_loaded_by_their_paths(workdir, model):
    at_step = videodit.load(workdir / "checkpoints" / "0")
    assert (at_step.generate(PROMPTS[0], steps=2).array == model.generate(PROMPTS[0], steps=2).array).all()
    vae = videodit.load(workdir / "vae")
    assert isinstance(vae, videodit.Model) and not isinstance(vae, videodit.TextToVideoModel)
    with pytest.raises(ValueError, match="there is no checkpoint of step 7"):
        videodit.load(workdir, step=7)
    with pytest.raises(ValueError, match="is not a run's directory"):
        videodit.load(workdir / "nothing")
    with pytest.raises(ValueError, match="the checkpoint of step 0, and step 3 is given besides"):
        videodit.load(workdir / "checkpoints" / "0", step=3)


def test_a_video_shows_itself_in_a_notebook(model):
    html = model.generate(PROMPTS[0], steps=2)._repr_html_()
    assert html.startswith("<video") and "data:video/mp4;base64," in html


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expand": "http://localhost:1"}, "go together"),
        ({"expand_model": "name"}, "go together"),
        ({"expand": "http://localhost:1", "expand_model": "name", "expand_length": "huge"}, "not 'huge'"),
    ],
)
def test_an_expansion_is_complete(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.generate(PROMPTS[0], **options)
