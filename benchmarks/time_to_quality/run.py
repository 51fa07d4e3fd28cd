"""Time to quality: train systems for the same minutes on the same cores, sample, compare. See README.md.

python -m benchmarks.time_to_quality.run --minutes 10 --seeds 0 --systems snowmelt,diffusers-small -n 2000
python -m benchmarks.time_to_quality.run report
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.time_to_quality import pictures, report
from benchmarks.time_to_quality.classifier import CACHE, Judge
from benchmarks.time_to_quality.peers import SYSTEMS

ROOT = Path(__file__).parents[2]
KEY = ("system", "minutes", "seed", "n", "sampling_steps")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time_to_quality.run", description=__doc__)
    parser.add_argument("mode", nargs="?", choices=["run", "report"], default="run")
    parser.add_argument("--minutes", default="10", help="budgets, comma-separated")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="comma-separated, of: " + ", ".join(SYSTEMS))
    parser.add_argument("-n", type=int, default=2000, help="samples a row")
    parser.add_argument("--steps", type=int, default=50, help="sampling steps")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for every row (default: all cores)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/time_to_quality.jsonl"))
    parser.add_argument(
        "--peer-python",
        default=os.environ.get("BENCH_PYTHON", sys.executable),
        help="interpreter of the peers' environment (default: $BENCH_PYTHON, else this one)",
    )
    args = parser.parse_args()
    unknown = set(args.systems.split(",")) - set(SYSTEMS)
    if unknown:
        parser.error(f"unknown system {', '.join(sorted(unknown))}; choose from {', '.join(SYSTEMS)}")
    return args


def read(path: Path) -> list[dict]:
    """The rows of a result file; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []


def produce(row: dict, args: argparse.Namespace) -> Path | None:
    """Train and sample in a process of its own; the folder with samples and facts, or None where it failed.

    A folder that is already whole (its scoring was cut off) is used as it is; one that is not is begun again.
    """
    folder = CACHE / report.grid_name(row)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "facts.json").exists():
        return folder
    # No resolve(): the path of a virtual environment's interpreter is what makes it that environment's.
    python = sys.executable if row["system"].startswith("snowmelt") else Path(args.peer_python).absolute()
    command = [
        str(python), "-m", "benchmarks.time_to_quality.row", "--system", row["system"],
        "--minutes", str(row["minutes"]), "--seed", str(row["seed"]), "-n", str(row["n"]),
        "--steps", str(row["sampling_steps"]), "--threads", str(args.threads),
    ]  # fmt: skip
    threads = str(args.threads)
    environment = os.environ | {
        "TQDM_DISABLE": "1",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }
    with (folder / "log.txt").open("w") as log:
        code = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log).returncode
    if code == 0 and (folder / "facts.json").exists():
        return folder
    tail = (folder / "log.txt").read_text().splitlines()[-8:]
    print(f"  FAILED with exit code {code}; the end of its log:\n    " + "\n    ".join(tail), flush=True)
    return None


def finish(row: dict, folder: Path, judge: Judge, out: Path) -> dict:
    """Score a produced row, write its grid, append it to the result file."""
    facts = json.loads((folder / "facts.json").read_text())
    with np.load(folder / "samples.npz") as stored:
        samples = stored["samples"]
    row = row | facts | judge.score(samples) | {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
    images = out.with_suffix("")
    images.mkdir(parents=True, exist_ok=True)
    pictures.grid(samples).save(images / f"{report.grid_name(row)}.png")
    with out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    # The row has the facts now. Without this, a row deleted from the file would come back from the cache, not
    # be run.
    (folder / "facts.json").unlink()
    return row


def main() -> int:
    """Run what is not in the file yet, then print the table."""
    args = arguments()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows = read(args.out)
    failed = 0
    if args.mode == "run":
        judge = Judge.load()
        wanted = [
            {
                "system": system,
                "minutes": float(minutes),
                "seed": int(seed),
                "n": args.n,
                "sampling_steps": args.steps,
            }
            for minutes in args.minutes.split(",")
            for seed in args.seeds.split(",")
            for system in args.systems.split(",")
        ]
        done = {tuple(row[name] for name in KEY) for row in rows}
        for i, row in enumerate(wanted):
            name = f"[{i + 1}/{len(wanted)}] {report.grid_name(row)}"
            if tuple(row[part] for part in KEY) in done:
                print(f"{name}: already in {args.out.name}", flush=True)
                continue
            print(f"{name}: training for {row['minutes']:g} minutes, then sampling ...", flush=True)
            folder = produce(row, args)
            if folder is None:
                failed += 1
                continue
            row = finish(row, folder, judge, args.out)
            rows.append(row)
            print(f"  Frechet {row['frechet']:.2f} (floor {row['frechet_floor']:.2f})", flush=True)
    if rows:
        print(report.table(rows))
        for path in report.picture(rows, args.out.with_suffix("")):
            print(f"\n{path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
