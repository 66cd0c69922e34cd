"""`videodit quickstart` at a larger size: seconds of each stage, speed of the two trainings, and the scores.

    python experiments/gpu/quickstart_stages.py --workdir runs/large

A stage's row is written when the stage ends; its speed is the median of the values in `metrics.jsonl`.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from timing import Rows

HERE = Path(__file__).parent
STAGE = re.compile(r"\b(\d)/5  (\w+(?: \w+)*)")
TRAININGS = {"autoencoder": "vae", "transformer": "dit"}


def training_speed(workdir: Path) -> dict[str, Any]:
    """Return the medians of the speeds that a training logged, and its last loss."""
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    speed: dict[str, Any] = {"steps": entries[-1]["step"]}
    for name in ("clips_per_s", "tokens_per_s", "mfu"):
        values = [entry[name] for entry in entries if name in entry]
        speed |= {name: statistics.median(values)} if values else {}
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    return speed | ({"loss": losses[-1]} if losses else {})


def run_stages(command: list[str], workdir: Path, rows: Rows) -> int:
    """Run the quickstart, add a row per complete stage, and return the exit status."""
    stage, start, tail = None, time.perf_counter(), ""

    def end_stage(ok: bool) -> None:
        row = {"stage": stage, "seconds": round(time.perf_counter() - start, 2), "ok": ok}
        if ok and stage in TRAININGS:
            row |= training_speed(workdir / TRAININGS[stage])
        if not ok:
            row["error"] = tail[-300:]
        rows.add(**row)

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            tail = line.strip() or tail
            if match := STAGE.search(line):
                if stage:
                    end_stage(ok=True)
                stage, start = match[2], time.perf_counter()
    if stage:
        end_stage(ok=process.returncode == 0)
    return process.returncode


def main() -> int:
    """Add a row per stage and one of the scores; return the quickstart's exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, help="the quickstart's directory (default: a temporary one)")
    parser.add_argument("--rows", type=Path, help="file that results are appended to, one JSON object per line")
    parser.add_argument("--tiny", action="store_true", help="a few steps of small models, on any device")
    args = parser.parse_args()
    rows = Rows(args.rows)
    config, clips, heldout, workers = ("tiny", 8, 4, 1) if args.tiny else ("large", 6000, 128, 12)
    with tempfile.TemporaryDirectory(prefix="quickstart-") as temporary:
        workdir = args.workdir or Path(temporary)
        command = [sys.executable, "-m", "videodit", "quickstart", "--workdir", str(workdir)]
        command += ["--config", str(HERE / f"quickstart_{config}.py"), "--clips", str(clips)]
        command += ["--heldout-clips", str(heldout), "--workers", str(workers)]
        status = run_stages(command, workdir, rows)
        if status == 0:
            rows.add(stage="scores", **json.loads((workdir / "metrics.json").read_text(encoding="utf-8")))
    return status


if __name__ == "__main__":
    sys.exit(main())
