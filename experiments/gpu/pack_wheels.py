"""Packing of the wheels that run.sh needs on a machine without network: videodit's dependencies beyond jax.

    python3.12 experiments/gpu/pack_wheels.py [--installed FILE] [--python 3.12] [--out experiments/gpu/wheels]

For CPython on x86-64 Linux. Jax and its dependencies (jaxlib, numpy, scipy, ...) are never packed: the machine's own
match its GPU. Packages that `--installed` lists (names, or `pip list --format=freeze` of the machine) are optional: the
smallest of them are packed, up to the size limit, for a machine that lacks some. Above the limit nothing is written.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from install_missing import ROOT, canonical

HERE = Path(__file__).parent
LIMIT = 55 * 2**20
# Versions of glibc that wheels are tagged with, the newest first; pip takes each as it stands.
GLIBC = (*range(39, 16, -1), 12, 5)


def download(requirements: list[str], python: str, folder: Path) -> list[Path]:
    """Download the wheels of requirements and of all their dependencies.

    Raises:
        RuntimeError: if pip cannot find or download one.
    """
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in GLIBC] + ["manylinux2014_x86_64", "manylinux2010_x86_64"]
    tags = ["--python-version", python, "--implementation", "cp", "--only-binary=:all:"]
    tags += [option for name in platforms for option in ("--platform", name)]
    tags += ["--abi", f"cp{python.replace('.', '')}", "--abi", "abi3", "--abi", "none"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *tags, *requirements]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"pip cannot download: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return sorted(folder.glob("*.whl"))


def choose(wheels: list[Path], jax: set[str], installed: set[str], limit: int) -> list[Path]:
    """Return the wheels to pack: all that are required, then the smallest of those that are installed.

    Raises:
        ValueError: if the required wheels exceed the limit in bytes.
    """
    sizes = {wheel: wheel.stat().st_size for wheel in wheels}
    names = {wheel: canonical(wheel.name.split("-")[0]) for wheel in wheels}
    packed = [wheel for wheel in wheels if names[wheel] not in jax | installed]
    total = sum(sizes[wheel] for wheel in packed)
    if total > limit:
        largest = sorted(packed, key=sizes.get, reverse=True)[:4]
        names_of = ", ".join(f"{names[wheel]} {sizes[wheel] / 2**20:.1f}" for wheel in largest)
        raise ValueError(
            f"the wheels take {total / 2**20:.1f} MiB, more than {limit / 2**20:.0f}; the largest are {names_of}: "
            "list those that the machine has in --installed"
        )
    spare = [wheel for wheel in wheels if names[wheel] in installed - jax]
    for wheel in sorted(spare, key=sizes.get):
        if total + sizes[wheel] > limit:
            break
        packed.append(wheel)
        total += sizes[wheel]
    return packed


def main() -> int:
    """Fill the folder; return 1 if a download fails or the wheels are too large."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--installed", type=Path, default=HERE / "installed.txt", help="default: installed.txt here")
    parser.add_argument("--python", default="3.12")
    parser.add_argument("--jax", default="0.11", help="the machine's version, like 0.11 (default)")
    parser.add_argument("--out", type=Path, default=HERE / "wheels")
    args = parser.parse_args()
    lines = args.installed.read_text(encoding="utf-8").splitlines()
    installed = {canonical(re.split("[=@ ]", line)[0]) for line in lines if line.strip() and not line.startswith("#")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    jax = f"jax=={args.jax}.*"
    requirements = [line for line in project["dependencies"] if not line.startswith("jax>")]
    try:
        with tempfile.TemporaryDirectory() as folder:
            with_jax, alone = Path(folder) / "all", Path(folder) / "jax"
            wheels = download([jax, *requirements], args.python, with_jax)
            jax_names = {canonical(wheel.name.split("-")[0]) for wheel in download([jax], args.python, alone)}
            packed = choose(wheels, jax_names, installed, LIMIT)
            shutil.rmtree(args.out, ignore_errors=True)
            args.out.mkdir(parents=True)
            for wheel in packed:
                shutil.move(wheel, args.out / wheel.name)
    except (ValueError, RuntimeError) as error:
        print(f"pack_wheels: {error}", file=sys.stderr)
        return 1
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if commit.returncode == 0:  # a copy without .git measures under the name of this checkout
        (args.out / "COMMIT").write_text(commit.stdout, encoding="utf-8")
    size = sum(file.stat().st_size for file in args.out.iterdir())
    print(f"{len(packed)} wheels, {size / 2**20:.1f} MiB in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
