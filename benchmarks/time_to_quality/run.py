"""Time to quality: train systems for the same minutes on the same cores, sample, compare. See README.md.

    python -m benchmarks.time_to_quality.run --minutes 10 --seeds 0,1,2 --systems snowmelt,diffusers-small
    python -m benchmarks.time_to_quality.run --against validation --judge benchmarks/results/grey28_odd.safetensors \\
        --seeds 0,1,2 --set large-batch="--batch 128" --set fast="--lr 0.004"
    python -m benchmarks.time_to_quality.run report
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import torch

from benchmarks.time_to_quality import data, report
from benchmarks.time_to_quality.judge import AGAINST, DEFAULT, Judge
from benchmarks.time_to_quality.peers import OPTIONS, SNOWMELT, SYSTEMS, Task, evaluations
from benchmarks.time_to_quality.peers.common import WEIGHTS, die_with_parent
from benchmarks.time_to_quality.peers.snowmelt_cli import RUN, SAMPLES
from benchmarks.time_to_quality.report import KEY
from benchmarks.time_to_quality.row import TASK, TRAINED, sampled

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "benchmarks" / "cache" / "time_to_quality"
PUBLISHED = "published"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.time_to_quality.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("mode", nargs="?", choices=["run", "report"], default="run")
    parser.add_argument("--minutes", default="10", help="budgets, comma-separated")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--systems", help=f"comma-separated (default: {SNOWMELT}; '': none), of: " + ", ".join(SYSTEMS))
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar='NAME="OPTIONS"',
        help="a variant of `snowmelt train` by its options, as a system of its own; may be given several times",
    )
    parser.add_argument(
        "--rates",
        default=PUBLISHED,
        help=f"learning rates of the peers, comma-separated; {PUBLISHED}: their recipe's (default)",
    )
    parser.add_argument("-n", default="1000", help="samples a row, comma-separated")
    parser.add_argument(
        "--evaluations", default="50,10", help="network evaluations an image: of Snowmelt; the first is the peers' too"
    )
    parser.add_argument("--against", choices=AGAINST, default=AGAINST[0], help="what samples are compared with")
    parser.add_argument("--judge", type=Path, default=DEFAULT, help="file of the feature network (default: grey28)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for every row (default: all cores)")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/time_to_quality[_validation].jsonl")
    parser.add_argument(
        "--peer-python",
        default=os.environ.get("BENCH_PYTHON", sys.executable),
        help="interpreter of the peers' environment (default: $BENCH_PYTHON, else this one)",
    )
    args = parser.parse_args()
    if args.out is None:
        suffix = "" if args.against == AGAINST[0] else f"_{args.against}"
        args.out = ROOT / "benchmarks" / "results" / f"time_to_quality{suffix}.jsonl"
    args.variants = {}
    for text in args.set:
        name, equals, options = text.partition("=")
        if not equals or not re.fullmatch(r"[\w.+-]+", name) or name in SYSTEMS:
            parser.error(f'--set {text}: expected NAME="OPTIONS", with a name of letters and digits that is no system')
        args.variants[name] = options.strip()
    systems = SNOWMELT if args.systems is None else args.systems
    args.names = [*filter(None, systems.split(",")), *args.variants]
    unknown = set(args.names) - set(SYSTEMS) - set(args.variants)
    if unknown:
        parser.error(f"unknown system {', '.join(sorted(unknown))}; choose from {', '.join(SYSTEMS)}")
    return args


def tasks(args: argparse.Namespace) -> list[Task]:
    """What is to be trained: for each budget and seed all systems in turn, so that a slow hour strikes all alike."""
    options = OPTIONS | args.variants
    wanted = [None if text == PUBLISHED else float(text) for text in args.rates.split(",")]

    def rates(name: str) -> list[float | None]:
        """Each once; the recipe's own, however it was asked for, is None."""
        if name in options:
            return [None]
        return list(dict.fromkeys(None if rate == SYSTEMS[name].rate else rate for rate in wanted))

    return [
        Task(name, options.get(name), float(minutes), int(seed), rate)
        for minutes in args.minutes.split(",")
        for seed in args.seeds.split(",")
        for name in args.names
        for rate in rates(name)
    ]


class Runner:
    """Makes the rows of a task, those that are missing."""

    def __init__(self, args: argparse.Namespace, judge: Judge, rows: list[dict]) -> None:
        self.args, self.judge, self.rows = args, judge, rows
        self.data = data.folder()
        if args.against == "validation":
            self.data = data.make_validation(CACHE / f"validation-{('even', 'odd')[judge.half]}", judge.half)
        self.counts = [int(text) for text in args.n.split(",")]
        self.floors = {count: judge.floor(count) for count in self.counts}

    def missing(self, task: Task) -> list[dict]:
        """The keys of its rows that are not in the file."""
        asked = tuple(int(text) for text in self.args.evaluations.split(","))
        wanted = [
            asdict(task)
            | {
                "evaluations": each,
                "n": count,
                "against": self.args.against,
                "judge": self.judge.name,
                "judge_sha256": self.judge.digest,
            }
            for count in self.counts
            for each in evaluations(task.system, asked)
        ]
        done = {_key(row) for row in self.rows}
        return [row for row in wanted if _key(row) not in done]

    def run(self, task: Task, missing: list[dict]) -> bool:
        """Train, sample, score and write each row as soon as it is there; False where a process failed.

        What a run that was cut off has finished is used as it is; what is not whole is begun again.
        """
        folder = report.folder(CACHE, missing[0])
        self._open(folder, task)
        if not (folder / TRAINED).exists() and not self._process(folder, task, "train"):
            return False
        for row in missing:
            facts_file, images_file = sampled(row["n"], row["evaluations"])
            command = ("sample", str(row["n"]), str(row["evaluations"]))
            if not (folder / facts_file).exists() and not self._process(folder, task, *command):
                return False
            with np.load(folder / images_file) as stored:
                images = stored["samples"]
            facts = json.loads((folder / TRAINED).read_text()) | json.loads((folder / facts_file).read_text())
            self._append(row | facts | self.judge.score(images))
        # The file has the facts now. Without this, a row that is deleted from it would come back from the cache.
        for path in (folder / TRAINED, folder / WEIGHTS, *folder.glob("sampled-*.json")):
            path.unlink(missing_ok=True)
        for path in (folder / RUN, folder / SAMPLES):
            shutil.rmtree(path, ignore_errors=True)
        return True

    def _open(self, folder: Path, task: Task) -> None:
        """Empty the folder unless it is of the same task, data, threads and source."""
        wanted = {"task": asdict(task), "data": str(self.data), "threads": self.args.threads}
        if task.options is not None:
            wanted["source"] = source()
        if not (folder / TASK).exists() or json.loads((folder / TASK).read_text()) != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / TASK).write_text(json.dumps(wanted))

    def _process(self, folder: Path, task: Task, *command: str) -> bool:
        # No resolve(): the path of a virtual environment's interpreter is what makes it that environment's.
        python = sys.executable if task.options is not None else str(Path(self.args.peer_python).absolute())
        environment = os.environ | {
            "TQDM_DISABLE": "1",
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
            "OMP_NUM_THREADS": str(self.args.threads),
            "MKL_NUM_THREADS": str(self.args.threads),
            data.VARIABLE: str(self.data),
        }
        print(f"  {' '.join(command)} ...", flush=True)
        with (folder / "log.txt").open("a") as log:
            code = subprocess.run(
                [python, "-m", "benchmarks.time_to_quality.row", *command],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            ).returncode
        if code:
            tail = (folder / "log.txt").read_text().splitlines()[-8:]
            print(f"  FAILED with exit code {code}; the end of its log:\n    " + "\n    ".join(tail), flush=True)
        return code == 0

    def _append(self, row: dict) -> None:
        row |= {"floor": self.floors[row["n"]], "finished": datetime.now(UTC).isoformat(timespec="seconds")}
        if row["options"] is not None:
            row["source"] = source()
        self.rows.append(row)
        with self.args.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        drawn = f"{row['n']:,} in {row['evaluations']} evaluations"
        print(f"  {drawn}: FD {row['fd']:.2f} ± {row['fd_error']:.2f}", flush=True)


def _key(row: dict) -> tuple:
    return tuple(row[name] for name in KEY)


@cache
def source() -> str:
    """The last commit of Snowmelt's source, with a plus where there are changes that are not committed."""

    def git(*command: str) -> str:
        return subprocess.run(["git", *command, "--", "src"], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    return git("log", "-1", "--format=%h") + "+" * bool(git("status", "--porcelain"))


def main() -> int:
    """Run what is not in the file yet, then print the tables and draw the pictures."""
    args = arguments()
    torch.set_num_threads(args.threads)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows = report.read(args.out)
    failed = 0
    if args.mode == "run":
        runner = Runner(args, Judge.load(args.judge, args.against), rows)
        wanted = tasks(args)
        for number, task in enumerate(wanted, 1):
            name = f"[{number}/{len(wanted)}] {report.name(asdict(task))}"
            missing = runner.missing(task)
            print(name if missing else f"{name}: already in {args.out.name}", flush=True)
            failed += bool(missing) and not runner.run(task, missing)
    asked = args.names if args.mode == "run" or args.systems or args.set else None
    report.write(rows, asked, CACHE, args.out.with_suffix(""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
