"""Installation, from a folder of wheels, of packages that this interpreter lacks or has in a version that is too old.

    python experiments/gpu/install_missing.py --wheels experiments/gpu/wheels --into DIR

Installed packages stay as they are: jax with its CUDA packages above all. `DIR` then belongs on PYTHONPATH.
"""

import argparse
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def canonical(name: str) -> str:
    """Return a distribution's normalised name, as package indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def release(version: str) -> tuple[int, ...]:
    """Return the release numbers at the start of a version."""
    return tuple(int(number) for number in re.match(r"\d+(?:\.\d+)*", version)[0].split("."))


def minimums(pyproject: Path) -> dict[str, tuple[int, ...]]:
    """Return the minimum version of each of the project's dependencies (written `NAME[EXTRA]>=VERSION`)."""
    dependencies = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    matches = [re.fullmatch(r"([\w.-]+)(?:\[.*\])?>=([\d.]+)", line) for line in dependencies]
    return {canonical(match[1]): release(match[2]) for match in matches if match}


def missing(wheels: list[Path], least: dict[str, tuple[int, ...]]) -> list[Path]:
    """Return the wheels whose distribution is not installed, or is older than the project admits."""
    missing_wheels = []
    for wheel in wheels:
        name = canonical(wheel.name.split("-")[0])
        try:
            installed = release(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            installed = None
        if installed is None or installed < least.get(name, ()):
            missing_wheels.append(wheel)
    return missing_wheels


def main() -> int:
    """Install the missing wheels; return pip's exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    args = parser.parse_args()
    wheels = missing(sorted(args.wheels.glob("*.whl")), minimums(ROOT / "pyproject.toml"))
    print(f"wheels to install: {', '.join(wheel.name.split('-')[0] for wheel in wheels) or 'none'}", file=sys.stderr)
    if not wheels:
        return 0
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--target", str(args.into)]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options]
    return subprocess.run([*command, *map(str, wheels)]).returncode


if __name__ == "__main__":
    sys.exit(main())
