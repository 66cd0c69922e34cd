"""The measurements of `run.sh`: runs the parts one after the other, each in a process with a time limit.

It rewrites one JSON file after each part; README.md describes the file.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SCHEMA = 1
PACKAGES = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "flax", "optax", "orbax-checkpoint", "numpy")
PACKAGES += ("torch", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "grain", "av")
# Prints JAX's devices, in a process of its own like a part.
DEVICES = (
    "import jax, json; d = jax.devices(); "
    "print(json.dumps({'platform': d[0].platform, 'device_kind': d[0].device_kind, 'count': len(d)}))"
)


@dataclass(frozen=True)
class Part:
    """A script of this folder, and its time limit in seconds; time that earlier parts do not use is added."""

    script: str
    limit: float

    @property
    def name(self) -> str:
        return self.script.removesuffix(".py")


# Ordered by value. The limits sum to 525 seconds, which leaves 15 of nine minutes for the start.
PARTS = (
    Part("attention_correctness.py", 95),
    Part("attention_speed.py", 90),
    Part("train_step.py", 180),
    Part("quickstart_stages.py", 135),
    Part("checkpoint_speed.py", 25),
)


def output_of(*command: str) -> str | None:
    """Return the output of a command, stripped; None if it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def git_commit() -> str | None:
    """Return the checkout's commit, with `-dirty` if files changed; in a copy, the one that pack_wheels.py stored."""
    commit = output_of("git", "rev-parse", "HEAD")
    if commit:
        return commit + ("-dirty" if output_of("git", "status", "--porcelain", "--untracked-files=no") else "")
    commit_file = HERE / "wheels" / "COMMIT"
    return commit_file.read_text(encoding="utf-8").strip() if commit_file.exists() else None


def versions() -> dict[str, str]:
    """Return the versions of Python and of those of `PACKAGES` that are installed."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def hardware() -> dict[str, Any]:
    """Return the devices that JAX sees, the driver's description of them, and the host's."""
    devices = output_of(sys.executable, "-c", DEVICES)
    query = "--query-gpu=name,memory.total,driver_version,clocks.max.sm,power.limit"
    return {
        "jax": json.loads(devices.splitlines()[-1]) if devices else None,
        "nvidia_smi": output_of("nvidia-smi", query, "--format=csv,noheader"),
        "cpus": os.cpu_count(),
        "host_memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "machine": platform.machine(),
        "system": platform.platform(),
    }


def write_atomically(path: Path, results: dict[str, Any]) -> None:
    """Write JSON such that a reader finds the old file or the new one, even after a kill."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def run_part(part: Part, limit: float, tiny: bool) -> dict[str, Any]:
    """Run one part, ending it and its children at `limit` seconds, and return its status and rows."""
    with tempfile.TemporaryDirectory(prefix="rows-") as folder:
        rows, log = Path(folder) / "rows.jsonl", Path(folder) / "log"
        command = [sys.executable, str(HERE / part.script), "--rows", str(rows), *(["--tiny"] if tiny else [])]
        start = time.perf_counter()
        with log.open("w+", encoding="utf-8") as file:
            process = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr, stderr=file, start_new_session=True)
            try:
                status = "ok" if process.wait(limit) == 0 else "failed"
            except subprocess.TimeoutExpired:
                status = "out of time"
            finally:  # children too, and also when this process is interrupted
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
        result = {
            "status": status,
            "seconds": round(time.perf_counter() - start, 1),
            "limit_s": round(limit, 1),
            "rows": [json.loads(line) for line in lines if line.endswith("}")],
        }
        if status != "ok":
            result["stderr_tail"] = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        return result


def main() -> int:
    """Run all requested parts; return 0 if all of them are complete."""
    parser = argparse.ArgumentParser(prog="experiments/gpu/run.sh", description="Measure videodit on this machine.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for gpu.json")
    parser.add_argument("--tiny", action="store_true", help="everything in small, on any device, to try the script")
    names = [part.name for part in PARTS]
    parser.add_argument("--parts", default=",".join(names), help="comma-separated (default: all)")
    parser.add_argument("--scale-limits", type=float, default=1.0, metavar="X", help="X times the limits of the parts")
    args = parser.parse_args()
    chosen = args.parts.split(",")
    if unknown := sorted(set(chosen) - set(names)):
        parser.error(f"there is no part {unknown[0]}: the parts are {', '.join(names)}")
    start = time.perf_counter()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "gpu.json"
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "command": ["experiments/gpu/run.sh", *sys.argv[1:]],
        "commit": git_commit(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "tiny": args.tiny,
        "versions": versions(),
        "hardware": hardware(),
        "parts": {name: {"status": "not run"} for name in chosen},
    }
    write_atomically(path, results)
    deadline = time.perf_counter()
    for part in PARTS:
        if part.name not in chosen:
            continue
        deadline += args.scale_limits * part.limit
        print(f"== {part.name}, at most {deadline - time.perf_counter():.0f} s", file=sys.stderr, flush=True)
        results["parts"][part.name] = run_part(part, deadline - time.perf_counter(), args.tiny)
        results["seconds"] = round(time.perf_counter() - start, 1)
        write_atomically(path, results)
    states = {name: part["status"] for name, part in results["parts"].items()}
    print(json.dumps(states), path, file=sys.stderr, flush=True)
    return 0 if set(states.values()) == {"ok"} else 1


if __name__ == "__main__":
    sys.exit(main())
