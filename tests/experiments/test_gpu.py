"""The GPU measurements in small on a CPU: every part runs, and the file has the format of README.md."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GPU = ROOT / "experiments" / "gpu"


@pytest.fixture
def script(monkeypatch):
    """Import a script of the folder by its name."""
    monkeypatch.syspath_prepend(str(GPU))
    return importlib.import_module


def run(out: Path, *options: str, status: int = 0) -> dict:
    """Run all requested parts in small; return the JSON file's content."""
    command = ["bash", str(GPU / "run.sh"), "--out", str(out), "--tiny", *options]
    environment = os.environ | {"PYTHON": sys.executable, "XLA_FLAGS": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=out.parent)
    assert done.returncode == status, done.stderr[-3000:]
    return json.loads((out / "gpu.json").read_text())


def check_head(results: dict, *parts: str) -> None:
    assert results["schema"] == 1 and results["tiny"] is True and results["seconds"] > 0
    assert results["command"][0] == "experiments/gpu/run.sh" and "--tiny" in results["command"]
    assert results["commit"] is None or len(results["commit"].split("-")[0]) == 40
    assert {"python", "jax", "flax", "numpy"} <= set(results["versions"])
    assert results["hardware"]["jax"]["platform"] == "cpu" and results["hardware"]["cpus"]
    assert list(results["parts"]) == list(parts)
    for part in results["parts"].values():
        assert part["status"] == "ok" and 0 < part["seconds"] < part["limit_s"] and part["rows"], part


def check_correctness(rows: list[dict]) -> None:
    for row in rows:
        assert row["ok"] and set(row["errors"]) == {"out", "d_q", "d_k", "d_v"}, row
    assert {row["implementation"] for row in rows} == {"xla", "default"}
    assert any(row["segments"] or row["mask"] != "None" for row in rows)


def test_attention_is_measured(tmp_path):
    results = run(
        tmp_path / "out", "--parts", "attention_correctness,attention_speed,checkpoint_speed", "--scale-limits", "5"
    )
    check_head(results, "attention_correctness", "attention_speed", "checkpoint_speed")
    (checkpoint,) = results["parts"]["checkpoint_speed"]["rows"]
    assert checkpoint["agrees_with_host"] and checkpoint["survives"] and checkpoint["restore_s"] > 0
    check_correctness(results["parts"]["attention_correctness"]["rows"])
    speed = [row for row in results["parts"]["attention_speed"]["rows"] if row["implementation"] == "xla"]
    assert speed and all(row["forward"]["ms"] > 0 and row["backward"]["tflops"] > 0 for row in speed)


@pytest.mark.slow
def test_training_and_the_quickstart_are_measured(tmp_path):
    results = run(tmp_path / "out", "--parts", "train_step,quickstart_stages", "--scale-limits", "5")
    check_head(results, "train_step", "quickstart_stages")
    (step,) = results["parts"]["train_step"]["rows"]
    assert step["step_s"] > 0 and step["tflops_per_device"] > 0 and step["loss"] > 0 and step["mfu"] is None
    *stages, scores = results["parts"]["quickstart_stages"]["rows"]
    assert all(row["ok"] and row["seconds"] > 0 for row in stages) and len(stages) == 5
    assert scores["stage"] == "scores" and scores["prompts"] == 4


def test_configurations_of_the_larger_quickstart_fit_together(monkeypatch):
    from videodit.config.io import load

    monkeypatch.chdir(ROOT)
    for name in ("quickstart_large", "quickstart_tiny"):
        vae, dit = (load(f"experiments/gpu/{name}.py:{variant}") for variant in ("vae", "dit"))
        assert dit.model.in_channels == vae.model.latent_channels and dit.text.width == dit.model.text_width
        assert (dit.data.frames, dit.data.height, dit.data.width) == (vae.data.frames, vae.data.height, vae.data.width)


def test_a_part_that_fails_or_hangs_is_written_with_what_it_had(script, tmp_path, monkeypatch):
    measure = script("measure")
    stub = tmp_path / "stub.py"
    monkeypatch.setattr(measure, "HERE", tmp_path)
    lines = ["import sys, time", "open(sys.argv[2], 'a').write('{\"a\": 1}\\n{\"b\"')"]
    stub.write_text("\n".join([*lines, "sys.exit('no such GPU')"]))
    failed = measure.run_part(measure.Part("stub.py", 20), 20, tiny=False)
    assert failed["status"] == "failed" and failed["rows"] == [{"a": 1}] and "no such GPU" in failed["stderr_tail"]
    stub.write_text("\n".join([*lines, "time.sleep(60)"]))
    hung = measure.run_part(measure.Part("stub.py", 1), 1, tiny=False)
    assert hung["status"] == "out of time" and hung["seconds"] < 20
    assert sum(part.limit for part in measure.PARTS) <= 9 * 60 - 15


def test_wheels_are_those_that_the_machine_lacks_within_the_limit(script, tmp_path):
    pack, install = script("pack_wheels"), script("install_missing")
    sizes = {"jaxlib": 900, "needed": 50, "small": 5, "large_one": 60, "numpy": 1}
    wheels = [tmp_path / f"{name}-1.0-py3-none-any.whl" for name in sizes]
    for wheel, size in zip(wheels, sizes.values(), strict=True):
        wheel.write_bytes(bytes(size))
    packed = pack.choose(wheels, jax={"jaxlib", "numpy"}, installed={"small", "large-one"}, limit=100)
    assert [wheel.name.split("-")[0] for wheel in packed] == ["needed", "small"]
    with pytest.raises(
        ValueError, match=r"large-one 0\.0, needed 0\.0.*: list those that the machine has in --installed"
    ):
        pack.choose(wheels, jax={"jaxlib"}, installed=set(), limit=100)
    # Installed packages are replaced only if they are too old.
    assert install.missing(wheels, {}) == [
        wheel for wheel in wheels if wheel.name.split("-")[0] not in ("jaxlib", "numpy")
    ]
    assert install.missing(wheels[-1:], {"numpy": (999,)}) == wheels[-1:]
    assert install.minimums(ROOT / "pyproject.toml")["etils"] == (1, 9)
