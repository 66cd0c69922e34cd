import io
import json
import signal
from dataclasses import replace

import jax
import numpy as np
import pytest
from rich.console import Console
from videodit_data.storage import directory_lock
from videodit_data.storage.directory_lock import DirectoryLock

from tests.train.toy import ToyLoader, ToyTask, checkpoint_steps, digest, host_batch, toy_run
from videodit.checkpoint.metrics_file import read_metrics
from videodit.parallel.mesh import MeshConfig
from videodit.train.loop import train
from videodit.train.step_log import NonFiniteLoss

TIMED = {"clips_per_s", "tokens_per_s", "mfu"}


def toy_train(run, workdir, *, loader=None, held_out=None, devices=1):
    console = Console(file=io.StringIO(), width=200)
    loader = ToyLoader() if loader is None else loader
    outcome = train(run, ToyTask(), loader, held_out, workdir, devices=jax.devices()[:devices], console=console)
    return outcome, console.file.getvalue()


def numbers(workdir):
    """Return the logged metrics without those that depend on a clock."""
    return [{name: value for name, value in entry.items() if name not in TIMED} for entry in read_metrics(workdir)]


def test_two_and_two_steps_are_four_steps_bit_for_bit(tmp_path):
    run, held_out = toy_run(steps=4, eval_every=2, sample_every=4), [host_batch(100, 8), host_batch(101, 8)]
    straight, text = toy_train(run, tmp_path / "a", held_out=held_out)
    run = replace(run, sample_every=0)
    toy_train(replace(run, steps=2), tmp_path / "b", held_out=held_out)
    resumed, _ = toy_train(run, tmp_path / "b", held_out=held_out)
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")
    assert [entry["step"] for entry in numbers(tmp_path / "a")] == [1, 2, 2, 3, 4, 4]
    assert digest(straight.state) == digest(resumed.state)
    assert straight.step == resumed.step == 4
    assert checkpoint_steps(tmp_path / "b") == [2, 4]
    assert "step 4/4  loss" in text
    assert "step 4  eval/loss" in text
    assert (tmp_path / "a" / "samples" / "00000004.png").is_file()

    again, _ = toy_train(run, tmp_path / "b", held_out=held_out)
    assert digest(straight.state) == digest(again.state), "a run that is done does nothing more"
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "b").rglob("*")}
    other = replace(run, seed=1, kl=0.5, log_every=7)
    with pytest.raises(ValueError, match=r"another run: kl is 0.0001 there and 0.5 here; seed is 0 there and 1 here;"):
        toy_train(other, tmp_path / "b")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "b").rglob("*")} == before
    with DirectoryLock(tmp_path / "b" / "run.lock", "b"):
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "b").rglob("*")}
        with pytest.raises(ValueError, match=r"b is in use by .*, process \d+, since"):
            toy_train(replace(run, steps=6), tmp_path / "b", held_out=held_out)
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "b").rglob("*")} == before


def test_sharded_training_is_that_of_one_device(tmp_path):
    run = toy_run(steps=3, save_every=0)
    alone, _ = toy_train(run, tmp_path / "one")
    for mesh in (MeshConfig(data=8), MeshConfig(data=2, fsdp=4)):
        workdir = tmp_path / f"fsdp{mesh.fsdp}"
        sharded, _ = toy_train(replace(run, mesh=mesh), workdir, devices=8)
        for here, there in zip(numbers(tmp_path / "one"), numbers(workdir), strict=True):
            assert here == pytest.approx(there, rel=1e-4)
        for here, there in zip(jax.tree.leaves(alone.state), jax.tree.leaves(sharded.state), strict=True):
            np.testing.assert_allclose(here, there, rtol=1e-3, atol=1e-4)
        kernel = sharded.state.params["up"]["kernel"]
        assert kernel.addressable_shards[0].data.shape[1] == kernel.shape[1] // mesh.fsdp
        moment = next(m for m in jax.tree.leaves(sharded.state.opt_state) if m.shape == kernel.shape)
        assert moment.sharding == kernel.sharding


def test_a_loss_that_is_no_number_stops_the_run_and_spares_the_checkpoints(tmp_path):
    run = toy_run(steps=8, save_every=2)
    with pytest.raises(NonFiniteLoss) as raised:
        toy_train(run, tmp_path, loader=ToyLoader(poison=5))
    message = str(raised.value)
    assert "step 6 is not finite (loss nan" in message
    assert "clip5.0, clip5.1" in message
    assert "the last good checkpoint is that of step 4" in message
    assert checkpoint_steps(tmp_path) == [2, 4]
    assert numbers(tmp_path)[-1]["step"] == 5


def test_ctrl_c_saves_and_returns_and_leaves_the_handlers_as_they_were(tmp_path):
    class Interrupting(ToyLoader):
        def __next__(self):
            if self.number == 3:
                signal.raise_signal(signal.SIGINT)
            return super().__next__()

    before = signal.getsignal(signal.SIGINT)
    outcome, text = toy_train(toy_run(steps=100, save_every=50), tmp_path, loader=Interrupting())
    assert outcome.interrupted_by == "SIGINT"
    assert 2 <= outcome.step <= 4
    assert checkpoint_steps(tmp_path) == [outcome.step]
    assert f"saved at step {outcome.step}, from which the same command resumes" in text
    assert signal.getsignal(signal.SIGINT) is before


def test_what_cannot_run_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="size 1 does not divide over mesh axes data=8"):
        toy_train(replace(toy_run(), optim=replace(toy_run().optim, micro_batches=8)), tmp_path / "a", devices=8)
    with pytest.raises(ValueError, match="does not fit 1 devices"):
        toy_train(toy_run(mesh=MeshConfig(fsdp=2)), tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_a_run_whose_workdir_another_one_took_over_saves_nothing_more(tmp_path, monkeypatch):
    class Slept(ToyLoader):
        """A loader during whose last batch the process is stopped for so long that another one takes the lock."""

        def __next__(self):
            if self.number == 3:
                owner = json.loads((tmp_path / "run.lock").read_bytes())
                (tmp_path / "run.lock").write_text(json.dumps(owner | {"token": "another", "host": "far"}))
                later = directory_lock._now() + 3600
                monkeypatch.setattr(directory_lock, "_now", lambda: later)
            return super().__next__()

    with pytest.raises(RuntimeError, match=r"lost the lock of .*, and saves nothing more: .* by .* on far, process"):
        toy_train(toy_run(steps=8, save_every=2), tmp_path, loader=Slept())
    assert checkpoint_steps(tmp_path) == [2]
    assert json.loads((tmp_path / "run.lock").read_bytes())["host"] == "far"


def test_data_that_end_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="the training data end at step 2 of 4: a loader must be endless"):
        toy_train(toy_run(steps=4), tmp_path, loader=ToyLoader(end=2))
