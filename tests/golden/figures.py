"""Make the figures of the golden runs by the command line of a source tree."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import orbax.checkpoint as ocp

KINDS = "vae", "dit", "packed", "bucketed", "lora"
ALL_RUNS = [f"{kind}-{devices}" for devices in (1, 4) for kind in KINDS]
PROMPTS = "a small red circle moves left\na large blue square stands still\n"


def make_figures(
    tree: Path, config: Path, root: Path, runs: Sequence[str], *, scores: bool = True, heldout: bool = True
) -> dict[str, Any]:
    """Return, by run, losses of every step, held-out losses and a digest of the parameters; samples; scores.

    Args:
        tree: the checkout whose code runs.
        config: configuration file of the runs, with the variants `KIND-DEVICES`.
        root: an empty folder for data, checkpoints and samples.
        runs: variants to train; those on one device come first, `vae-1` before them, since the others need it.
        scores: whether to sample and to score with the oracle (needs `dit-1`).
        heldout: whether the runs evaluate, which their training does not depend on.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / "prompts.txt").write_text(PROMPTS)
    commands: list[list[object]] = []
    for seed, (name, clips, width) in enumerate((("small", 48, 16), ("wide", 24, 24), ("heldout", 16, 16))):
        shape = ["--clips", clips, "--height", 16, "--width", width, "--seed", seed, "--frames", 9, "--fps", 8]
        commands.append(["data", "toyworld", "--out", name, "--processes", 1, *shape])
    commands.append(["data", "tokenizer", "small", "--out", "tokenizer.model", "--vocabulary", 128])
    by_devices: dict[int, list[list[object]]] = {1: commands}
    for run in runs:
        init = ["--init", "dit-1"] if run.startswith("lora") else []
        quick = [] if heldout else ["--config.eval_every=0", "--config.save_every=0"]
        train = ["train", "--config", f"{config}:{run}", "--workdir", run, *init, *quick]
        by_devices.setdefault(int(run.split("-")[1]), []).append(train)
        if run == "vae-1" and any(other.startswith("packed") for other in runs):
            commands.append(["data", "encode", "small", "--vae", "vae-1", "--out", "latents"])
    if scores:
        model = ["--checkpoint", "dit-1", "--weights", "params"]
        commands.append(["sample", *model, "--prompts", "prompts.txt", "--out", "samples", "--seed", 3])
        commands.append(["eval", *model, "--data", "heldout", "--out", "scores", "--clips", 8])
    for devices, some in by_devices.items():
        run_commands(tree, root, [[str(word) for word in words] for words in some], devices)
    figures: dict[str, Any] = {run: read_figures(root / run) for run in runs}
    if scores:
        figures["samples"] = [read_clip(path) for path in sorted((root / "samples").glob("*.mp4"))]
        measured = json.loads((root / "scores" / "metrics.json").read_text())
        figures["scores"] = {name: value for name, value in measured.items() if name != "provenance"}
    return figures


def run_commands(tree: Path, cwd: Path, commands: list[list[str]], devices: int) -> None:
    """Run `videodit` commands of a tree in one process of its own; RuntimeError with its output where one fails."""
    paths = [tree, tree / "data_pipelines", tree / "kernels"]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "PYTEST_"))
    }
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, paths)), "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    program = "import json, sys; from videodit.cli import main\n"
    program += "for words in json.load(sys.stdin): main(words) and sys.exit(1)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=cwd,
        env=environment,
        input=json.dumps(commands),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"a command of {tree} ended with {done.returncode}: {done.stderr[-2000:]}")


def read_figures(workdir: Path) -> dict[str, Any]:
    """Return a run's losses, its held-out losses, and the digest of its parameters."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {
        "loss": [line["loss"] for line in lines if "loss" in line],
        "grad_norm": [line["grad_norm"] for line in lines if "grad_norm" in line],
        "heldout": [line[name] for line in lines for name in ("eval/loss", "eval/l1") if name in line],
        "params": digest_params(workdir / "checkpoints"),
    }


def digest_params(checkpoints: Path) -> str:
    """Return the SHA-256 of the last checkpoint's parameters, by path."""
    last = max((path for path in checkpoints.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    with ocp.PyTreeCheckpointer() as reader:
        tree = reader.metadata(last / "state").item_metadata.tree
        leaves = {"params": tree["params"]}
        args = jax_map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), leaves)
        restored = reader.restore(
            last / "state", args=ocp.args.PyTreeRestore(leaves, restore_args=args, partial_restore=True)
        )
    digest = hashlib.sha256()
    for path, array in sorted(walk(restored["params"])):
        digest.update(path.encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def jax_map(fn: Any, tree: Any) -> Any:
    """Map over the leaves of nested dicts."""
    return {name: jax_map(fn, child) for name, child in tree.items()} if isinstance(tree, dict) else fn(tree)


def walk(tree: Any, prefix: str = "") -> Iterable[tuple[str, np.ndarray]]:
    """Yield the leaves of nested dicts by dotted path."""
    if isinstance(tree, dict):
        for name, child in tree.items():
            yield from walk(child, f"{prefix}.{name}")
    else:
        yield prefix, tree


def read_clip(path: Path) -> dict[str, Any]:
    """Return the mean of a clip's pixels, in [0, 1], and the digest of its frames."""
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    return {"mean": float(frames.mean() / 255), "frames": hashlib.sha256(frames.tobytes()).hexdigest()}
