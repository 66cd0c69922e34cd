"""Compare the golden runs of this tree with those of an earlier commit, on this machine, bit for bit.

    python tests/golden/compare.py                  all runs, against the commit that the goldens were made at
    python tests/golden/compare.py dit-1 packed-4   some of them
    python tests/golden/compare.py --write          also write tests/golden/values.json

With `dit-1`, this tree also resumes the earlier commit's run from its middle checkpoint.

Ends with status 1 where a figure differs, naming it.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TREE = HERE.parents[1]
sys.path.insert(0, str(TREE))

from tests.golden.figures import ALL_RUNS, make_figures, read_figures, run_commands  # noqa: E402

BASE = "27c330d"
EXPECTED: dict[str, float] = {}
"""By the beginning of a figure's name: the relative difference allowed, where a sum was ordered anew on purpose."""


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Yield a line for every figure that differs by more than it may."""
    if isinstance(there, dict):
        for key in sorted(there.keys() | here.keys()):
            yield from differences(there.get(key), here.get(key), f"{name}.{key}".lstrip("."))
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for index, pair in enumerate(zip(there, here, strict=True)):
            yield from differences(*pair, f"{name}[{index}]")
    elif there != here:
        allowed = max((most for start, most in EXPECTED.items() if name.startswith(start)), default=0.0)
        numbers = isinstance(there, float) and isinstance(here, float)
        if not (numbers and abs(there - here) <= allowed * abs(there)):
            yield f"{name}: {there} there, {here} here"


def resume_figures(root: Path) -> dict[str, Any]:
    """Return the figures of the earlier commit's `dit-1` in `root`, resumed by this tree from its middle checkpoint."""
    resumed = shutil.copytree(root / "dit-1", root / "resumed")
    _, last = sorted(int(path.name) for path in (resumed / "checkpoints").iterdir() if path.name.isdigit())
    shutil.rmtree(resumed / "checkpoints" / str(last))
    run_commands(TREE, root, [["train", "--config", f"{HERE / 'configs.py'}:dit-1", "--workdir", "resumed"]], 1)
    return read_figures(resumed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", help="KIND-DEVICES; all if none is named")
    parser.add_argument("--base", default=BASE, help=f"the earlier commit (default: {BASE})")
    parser.add_argument("--write", action="store_true", help="write this tree's figures to values.json")
    args = parser.parse_args()
    runs = ALL_RUNS
    if args.runs:
        needed = {"vae-1", *args.runs} | ({"dit-1"} if any(run.startswith("lora") for run in args.runs) else set())
        runs = [run for run in runs if run in needed]
    scores = "dit-1" in runs
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        base, root = Path(folder, "base"), Path(folder)
        subprocess.run(["git", "worktree", "add", "--detach", "--quiet", base, args.base], cwd=TREE, check=True)
        try:
            there = make_figures(base, HERE / "base_configs.py", root / "there", runs, scores=scores)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", base], cwd=TREE, check=True)
        here = make_figures(TREE, HERE / "configs.py", root / "here", runs, scores=scores)
        if args.write:
            (HERE / "values.json").write_text(json.dumps(here, indent=1) + "\n")
        if "dit-1" in runs:
            there["resumed"], here["resumed"] = there["dit-1"], resume_figures(root / "there")
    found = list(differences(there, here))
    print("\n".join(found) or f"{', '.join(here)}: equal bits")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
