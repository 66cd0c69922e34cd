import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from tests.train.toy import ToyModel, ToyTask, digest
from videodit.checkpoint.checkpoints import DAMAGED, Checkpoints, SaveError, checkpoint_step, restore_params
from videodit.checkpoint.disk_error import DiskError
from videodit.config.optim import OptimConfig
from videodit.nn.linear import Linear
from videodit.nn.state import abstract_arrays, abstract_module, matrix_axes_of
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.train.optim import learning_rate, make_optimizer
from videodit.train.state import abstract_state, init_state


@pytest.fixture(scope="module")
def states():
    """Return an abstract state on eight devices, and a state whose average differs from its parameters."""
    cfg = OptimConfig()
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    optimizer = make_optimizer(cfg, learning_rate(cfg, 10))
    _, abstract = abstract_state(abstract_module(ToyTask().init), optimizer, mesh)
    state = init_state(ToyTask().init, optimizer, abstract, jax.random.key(0))
    ema = jax.tree.map(lambda x: 2 * x, state.params)
    return abstract, type(state)(state.step, state.params, ema, state.opt_state, state.buffers)


def at(state, step):
    step = jax.device_put(np.int32(step), state.step.sharding)
    return type(state)(step, state.params, state.ema, state.opt_state, state.buffers)


def test_the_last_checkpoint_comes_back_bit_for_bit_and_older_ones_go(tmp_path, states):
    abstract, state = states
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.restore(abstract) is None
        for step in (2, 4, 6):
            checkpoints.save(step, at(state, step), {"number": step})
        checkpoints.save(6, at(state, 6), {"number": "this step has been saved"})
        assert checkpoints.latest_step() == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "6"]
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        restored, loader_state = checkpoints.restore(abstract)
    assert loader_state == {"number": 6}
    assert digest(restored) == digest(at(state, 6))
    for shape, array in zip(jax.tree.leaves(abstract), jax.tree.leaves(restored), strict=True):
        assert shape.sharding.is_equivalent_to(array.sharding, array.ndim)


def test_an_incomplete_checkpoint_is_ignored_and_removed(tmp_path, states):
    abstract, state = states
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(2, at(state, 2), {"number": 2})
    incomplete = tmp_path / "4.orbax-checkpoint-tmp-123"
    shutil.copytree(tmp_path / "2", incomplete)
    (incomplete / "state" / "_METADATA").unlink()
    assert checkpoint_step(tmp_path) == 2
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest_step() == 2
        assert checkpoints.restore(abstract)[1] == {"number": 2}
    assert not incomplete.exists()


def test_weights_alone_open_on_another_number_of_devices(tmp_path, states):
    _, state = states
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(3, at(state, 3), None)
    for mesh in (None, make_mesh(MeshConfig(data=1, fsdp=2), jax.devices()[:2])):
        graphdef, params, buffers = abstract_arrays(abstract_module(ToyTask().init), mesh)
        for which, expected in (("ema", state.ema), ("params", state.params)):
            restored, rest, _ = restore_params(tmp_path, None, which, params, buffers)
            assert digest(restored) == digest(expected)
            assert len(restored["up"]["kernel"].sharding.device_set) == (1 if mesh is None else 2)
        model = nnx.merge(graphdef, restored, rest)
        np.testing.assert_array_equal(model.count[...], state.buffers["count"])


def test_what_is_not_there_is_named(tmp_path, states):
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        checkpoint_step(tmp_path / "nowhere")
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(3, at(states[1], 3), None)
    assert checkpoint_step(tmp_path, 3) == 3
    with pytest.raises(ValueError, match=r"no checkpoint of step 5 in .*, only of 3"):
        checkpoint_step(tmp_path, 5)


def damage(folder, how):
    """Damage a checkpoint."""
    state = folder / "state"
    data = list(state.glob("ocdbt.process_*/d/*"))
    match how:
        case "no state":
            shutil.rmtree(state)
        case "no loader":
            shutil.rmtree(folder / "loader")
        case "null loader":
            (folder / "loader" / "metadata").write_text("null")
        case "other loader":
            (folder / "loader" / "metadata").write_text('{"state": {"number": 3}}')
        case "odd checksums":
            (folder / "checksums" / "metadata").write_text("[5]")
        case "no structure":
            (state / "_METADATA").unlink()
        case "structure is a list":
            (state / "_METADATA").write_text("[]")
        case "cut":
            for path in data:
                path.write_bytes(path.read_bytes()[:1000])
        case "zeroed":
            for path in data:
                path.write_bytes(bytes(path.stat().st_size))
        case "flipped":
            for path in data:
                content = bytearray(path.read_bytes())
                content[len(content) // 2] ^= 4
                path.write_bytes(content)
        case "empty":
            shutil.rmtree(folder)
            folder.mkdir()


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WAYS = (
    *("no state", "no loader", "null loader", "other loader", "odd checksums", "no structure", "structure is a list"),
    *("cut", "zeroed", "flipped", "empty"),
)


@pytest.mark.parametrize("how", WAYS)
def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_it_taken(tmp_path, states, how, caplog):
    abstract, state = states
    directory = tmp_path / "checkpoints"
    with Checkpoints(directory, keep=3) as checkpoints:
        for step in (4, 6):
            checkpoints.save(step, at(state, step), {"number": step})
    damage(directory / "6", how)
    before = contents(directory / "6")
    with Checkpoints(directory, keep=3) as checkpoints:
        with pytest.raises(
            ValueError, match=r"no checkpoint in .*checkpoints can be read: that of step 6 is damaged \("
        ):
            checkpoints.restore(abstract, strict=True)
        assert (directory / "6").exists()
        restored, loader_state = checkpoints.restore(abstract)
        assert loader_state == {"number": 4}
        assert digest(restored) == digest(at(state, 4))
        assert "the checkpoint of step 6 is damaged (" in caplog.text
        assert "that of step 4 is taken" in caplog.text
        checkpoints.save(6, at(state, 6), {"number": 6})
    assert contents(tmp_path / DAMAGED / "6") == before
    with Checkpoints(directory, keep=3) as checkpoints:
        assert checkpoints.restore(abstract)[1] == {"number": 6}


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(way, marks=() if way in ("no state", "flipped", "empty") else pytest.mark.slow)
        for way in WAYS
        if "loader" not in way
    ],
)
def test_weights_are_read_from_the_newest_whole_checkpoint(tmp_path, states, how, caplog):
    _, state = states
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for step in (2, 4):
            checkpoints.save(step, at(state, step), None)
    damage(tmp_path / "4", how)
    _, params, buffers = abstract_arrays(abstract_module(ToyTask().init), None)
    restored, _, step = restore_params(tmp_path, None, "ema", params, buffers)
    assert digest(restored) == digest(state.ema)
    if step == 4:  # the damage lies in what this reader does not read
        assert how in ("no structure", "flipped")
        assert not caplog.text
        return
    assert step == 2
    assert "that of step 2 is taken" in caplog.text
    for asked, strict in ((4, False), (None, True)):
        with pytest.raises(ValueError, match="that of step 4 is damaged"):
            restore_params(tmp_path, asked, "ema", params, buffers, strict=strict)
    assert (tmp_path / "4").exists()  # readers move nothing


def test_when_no_checkpoint_can_be_read_nothing_is_moved(tmp_path, states):
    abstract, state = states
    directory = tmp_path / "checkpoints"
    with Checkpoints(directory, keep=3) as checkpoints:
        for step in (2, 4):
            checkpoints.save(step, at(state, step), None)
    for step in ("2", "4"):
        damage(directory / step, "no state")
    message = r"step 4 is damaged \(it has no state\); that of step 2 is damaged"
    with Checkpoints(directory, keep=3) as checkpoints, pytest.raises(ValueError, match=message):
        checkpoints.restore(abstract)
    assert sorted(path.name for path in directory.iterdir()) == ["2", "4"]
    assert not (tmp_path / DAMAGED).exists()


def test_a_checkpoint_without_checksums_is_read(tmp_path, states):
    abstract, state = states
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(2, at(state, 2), {"number": 2})
    shutil.rmtree(tmp_path / "2" / "checksums")  # of an earlier version
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        restored, loader_state = checkpoints.restore(abstract)
    assert loader_state == {"number": 2}
    assert digest(restored) == digest(at(state, 2))


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(tmp_path, states, monkeypatch):
    abstract, state = states
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (2, 4):
            checkpoints.save(step, at(state, step), None)
        for error in (
            PermissionError(13, "Permission denied"),
            MemoryError(),
            ValueError("RESOURCE_EXHAUSTED: memory"),
        ):
            monkeypatch.setattr(ocp.PyTreeCheckpointHandler, "restore", raiser(error))
            with pytest.raises(type(error)):
                checkpoints.restore(abstract)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4"]


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), ValueError("INTERNAL: Error reading \"d/1\" [os_error_code='5']")]
)
def test_a_read_that_the_disk_fails_is_tried_again_and_then_an_error_of_the_disk(tmp_path, states, monkeypatch, error):
    abstract, state = states
    directory, restore, failures = tmp_path / "checkpoints", ocp.PyTreeCheckpointHandler.restore, [error]

    def fail_first(*args, **options):
        if failures:
            raise failures.pop()
        return restore(*args, **options)

    with Checkpoints(directory, keep=2) as checkpoints:
        for step in (2, 4):
            checkpoints.save(step, at(state, step), step)
        assert checkpoints.latest_step() == 4  # it is written by now
        monkeypatch.setattr(ocp.PyTreeCheckpointHandler, "restore", fail_first)
        assert checkpoints.restore(abstract)[1] == 4
        failures += [error, error]
        with pytest.raises(DiskError, match=f"{directory / '4'} could not be read or written, since the disk failed"):
            checkpoints.restore(abstract)
        assert not failures
    assert sorted(path.name for path in directory.iterdir()) == ["2", "4"]
    assert not (tmp_path / DAMAGED).exists()


class Extended(ToyModel):
    """A model with two arrays more, as LoRA adds them."""

    def __init__(self, width, rngs):
        super().__init__(width, rngs)
        self.lora = Linear({None: 2}, {None: 2}, rngs=rngs)


@pytest.mark.parametrize(
    ("make", "optim", "message"),
    [
        (
            lambda rngs: ToyModel(32, rngs),
            OptimConfig(),
            r"holds 24 arrays, and not those 24 that are to be read: 12 of another shape \("
            r"ema\.down\.kernel: \(16, 192\) there, \(32, 192\) here, ema\.up\.bias: .*, \.\.\.\); read it with",
        ),
        (
            lambda rngs: Extended(16, rngs),
            OptimConfig(),
            r"holds 24 arrays, and not those 32 .*: 8 only here \(ema\.lora\.bias, ema\.lora\.kernel, opt_state\.",
        ),
        (
            lambda rngs: ToyModel(16, rngs),
            OptimConfig(kind="muon"),
            r"holds 24 arrays, .*: \d+ only there \(opt_state\..*\); \d+ only here \(opt_state\.",
        ),
    ],
    ids=["width", "more arrays", "optimizer"],
)
def test_another_structure_is_no_damage(tmp_path, states, make, optim, message, caplog):
    directory = tmp_path / "checkpoints"
    with Checkpoints(directory, keep=3) as checkpoints:
        for step in (2, 4):
            checkpoints.save(step, at(states[1], step), None)
    module = abstract_module(make)
    optimizer = make_optimizer(optim, learning_rate(optim, 10), matrix_axes_of(module))
    _, other = abstract_state(module, optimizer, make_mesh(MeshConfig(), jax.devices()[:1]))
    with Checkpoints(directory, keep=3) as checkpoints, pytest.raises(ValueError, match=f"{directory / '4'} {message}"):
        checkpoints.restore(other)
    assert sorted(path.name for path in directory.iterdir()) == ["2", "4"]
    assert not (tmp_path / DAMAGED).exists()
    assert not caplog.text
    _, params, buffers = abstract_arrays(module, None)
    for on_host in (False, True):
        if optim == OptimConfig():
            with pytest.raises(ValueError, match=f"{directory / '4'} holds 24 arrays"):
                restore_params(directory, None, "ema", params, buffers, on_host=on_host)
        else:
            assert restore_params(directory, None, "ema", params, buffers, on_host=on_host)[2] == 4


def test_an_error_of_a_save_is_a_sentence_and_that_of_a_lost_process_stays_what_it_is(tmp_path, states, monkeypatch):
    _, state = states
    lost = jax.errors.JaxRuntimeError("a peer is gone")
    for error, expected in (
        (OSError(5, "Input/output error"), SaveError),
        (KeyError("x"), SaveError),
        (lost, type(lost)),
    ):
        with Checkpoints(tmp_path / "checkpoints", keep=2) as checkpoints:
            checkpoints.save(2, at(state, 2), None)
            checkpoints.latest_step()
            monkeypatch.setattr(checkpoints._manager, "save", raiser(error))
            with pytest.raises(expected, match=None if expected is not SaveError else "that of step 2"):
                checkpoints.save(4, at(state, 4), None)


def raiser(error):
    def fail(*args, **options):
        raise error

    return fail


def count_flips(checkpoints, abstract, folder, expected, flips, seed):
    """Flip bits of the files of a checkpoint, one at a time; return how many were noticed and had no effect, by file.

    A bit that is neither noticed nor without effect fails the test.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    sizes = np.array([path.stat().st_size for path in files])
    rng = np.random.default_rng(seed)
    counts = {path.relative_to(folder).as_posix(): [0, 0] for path in files}
    for number in range(flips):
        # Half of them anywhere, half of them spread over the files alike, however small these are.
        index = int(rng.choice(len(files), p=sizes / sizes.sum() if number % 2 else None))
        path, content = files[index], bytearray(files[index].read_bytes())
        bit = int(rng.integers(8 * len(content)))
        content[bit // 8] ^= 1 << bit % 8
        original = path.read_bytes()
        path.write_bytes(content)
        try:
            restored, loader_state = checkpoints.restore(abstract, strict=True)
        except ValueError as error:
            assert "damaged" in str(error)
            counts[path.relative_to(folder).as_posix()][0] += 1
        else:
            assert (digest(restored), loader_state) == expected, f"bit {bit} of {path}"
            counts[path.relative_to(folder).as_posix()][1] += 1
        finally:
            path.write_bytes(original)
    return counts


@pytest.mark.parametrize("flips", [24, pytest.param(1200, marks=pytest.mark.slow)])
def test_every_flipped_bit_is_noticed_or_without_effect(tmp_path, flips):
    optimizer = make_optimizer(OptimConfig(), learning_rate(OptimConfig(), 10))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    _, abstract = abstract_state(abstract_module(lambda rngs: ToyModel(2, rngs)), optimizer, mesh)
    state = init_state(lambda rngs: ToyModel(2, rngs), optimizer, abstract, jax.random.key(0))
    loader_state = {"plan": {"position": 12, "seed": 7}, "served": [3, 4]}
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(5, state, loader_state)
        checkpoints.latest_step()
        expected = digest(state), loader_state
        counts = count_flips(checkpoints, abstract, tmp_path / "5", expected, flips, seed=1)
        assert (digest(checkpoints.restore(abstract, strict=True)[0]), loader_state) == expected
    noticed, harmless = np.sum(list(counts.values()), axis=0)
    print(f"{noticed} of {flips} flipped bits noticed, {harmless} without effect: {counts}")
    for name, (_, unnoticed) in counts.items():
        assert not unnoticed or not name.endswith(("loader/metadata", "checksums/metadata", "state/manifest.ocdbt"))
