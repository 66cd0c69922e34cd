"""Make the figures of the golden runs by the command line of a source tree, each run in a process of its own."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
import orbax.checkpoint as ocp

KINDS = "vae", "dit", "packed", "bucketed", "lora"
DEVICES = 1, 4
PROMPTS = "a small red circle moves left\na large blue square stands still\n"


def make_figures(tree: Path, config: Path, root: Path, runs: Iterable[str], *, scores: bool = True) -> dict[str, Any]:
    """Return, by run, losses of every step, held-out losses and a digest of the parameters; samples; scores.

    Args:
        tree: the checkout whose code runs.
        config: configuration file of the runs, with the variants `KIND-DEVICES`.
        root: an empty folder for data, checkpoints and samples.
        runs: variants to train; `vae-1` comes first, since the others need it.
        scores: whether to sample and to score with the oracle (needs `dit-1`).
    """
    root.mkdir(parents=True, exist_ok=True)

    def videodit(*words: object, devices: int = 1) -> None:
        run_command(tree, root, [str(word) for word in words], devices)

    size = ("--frames", 9, "--fps", 8, "--processes", 1)
    for name, clips, height, width, seed in (
        ("small", 48, 16, 16, 0),
        ("wide", 24, 16, 24, 1),
        ("heldout", 16, 16, 16, 2),
    ):
        shape = ("--clips", clips, "--height", height, "--width", width, "--seed", seed, *size)
        videodit("data", "toyworld", "--out", name, *shape)
    videodit("data", "tokenizer", "small", "--out", "tokenizer.model", "--vocabulary", 128)
    figures: dict[str, Any] = {}
    for run in runs:
        init = ("--init", "dit-1") if run.startswith("lora") else ()
        videodit("train", "--config", f"{config}:{run}", "--workdir", run, *init, devices=int(run.split("-")[1]))
        figures[run] = read_config(root / run)
        if run == "vae-1":
            videodit("data", "encode", "small", "--vae", "vae-1", "--out", "latents")
    if scores:
        (root / "prompts.txt").write_text(PROMPTS)
        model = ("--checkpoint", "dit-1", "--weights", "params")
        videodit("sample", *model, "--prompts", "prompts.txt", "--out", "samples", "--seed", 3)
        figures["samples"] = [read_clip(path) for path in sorted((root / "samples").glob("*.mp4"))]
        videodit("eval", *model, "--data", "heldout", "--out", "scores", "--clips", 8)
        measured = json.loads((root / "scores" / "metrics.json").read_text())
        figures["scores"] = {name: value for name, value in measured.items() if name != "provenance"}
    return figures


def run_command(tree: Path, cwd: Path, words: list[str], devices: int) -> None:
    """Run a `videodit` command of a tree; RuntimeError with its output where it fails."""
    paths = [tree, tree / "data_pipelines", tree / "kernels"]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "PYTEST_"))
    }
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, paths)), "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, "-m", "videodit", *words], cwd=cwd, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"videodit {' '.join(words)} of {tree} ended with {done.returncode}: {done.stderr[-2000:]}")


def read_config(workdir: Path) -> dict[str, Any]:
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
    """Yield the leaves of nested dicts by dotted_path path."""
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
