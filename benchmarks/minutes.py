"""What a folder of images becomes in some minutes: `snowmelt train` and `snowmelt eval`, and nothing else.

    npm pack emoji-datasource-twitter && tar xzf emoji-datasource-twitter-*.tgz
    python -m benchmarks.minutes digits --minutes 2,10,60
    python -m benchmarks.minutes package/img/twitter/64 --minutes 2,10,60 --train "--size 32"

Fashion-MNIST beside other libraries is benchmarks.time_to_quality's. Here the judge is the evaluation's own: features
fitted to the real images at hand, the training images beside the samples, held-out ones as the floor, and how many
samples look like copies. With `--threads 1` two data sets can be trained at once on two cores. A row a (data, options,
minutes, seed, threads, commit of the source, evaluation) in benchmarks/results/minutes.jsonl; what the file has is not
run again, and a training that was cut off goes on. Runs stay in benchmarks/cache/minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.time_to_quality.run import source
from snowmelt.training.checkpoint import load_latest
from snowmelt.training.config import load_config
from snowmelt.training.run import was_stopped

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "benchmarks" / "cache" / "minutes"
OUT = ROOT / "benchmarks" / "results" / "minutes.jsonl"
EVALS = ("", "--steps 4 --guidance 1")
TRAINED = ("data", "train", "minutes", "seed", "threads", "source")  # what a run depends on
KEY = (*TRAINED, "eval", "n")


def snowmelt(words: str, threads: int) -> str:
    """What the command prints on standard output; its own words on standard error are shown."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "snowmelt", *shlex.split(words)]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def trained(key: dict[str, Any]) -> Path:
    """The run, trained to its end."""
    plain = re.sub(r"[^\w.]+", "-", f"{Path(key['data']).name} {key['train']}").strip("-")
    wholly = sha256(json.dumps([key[name] for name in TRAINED]).encode()).hexdigest()[:8]
    run = CACHE / f"{plain}-{key['minutes']:g}min-seed{key['seed']}-{wholly}"
    if not (run / "config.yaml").exists():
        options = f"--minutes {key['minutes']:g} --seed {key['seed']} --out {shlex.quote(str(run))} {key['train']}"
        snowmelt(f"train {shlex.quote(key['data'])} {options}", key["threads"])
    elif was_stopped(run, nearly=1.0):  # even shortly before its end: its rate would not have fallen to zero
        snowmelt(f"train --resume {shlex.quote(str(run))}", key["threads"])
    return run


def row(key: dict[str, Any]) -> dict[str, Any]:
    """Train where that is not done, and evaluate."""
    run = trained(key)
    words = f"eval {shlex.quote(str(run))} -n {key['n']} --metrics fd,prdc,memorization --json {key['eval']}"
    found = json.loads(snowmelt(words, key["threads"]))
    return key | {
        "images_seen": load_latest(run)[0].images,
        "preset": load_config(run / "config.yaml").preset,
        **{name: found[name] for name in ("snowmelt", "protocol", "fd", "prdc")},
        "copies_suspected": len(found["memorization"]["suspected"]),
        "held_out_suspected": found["memorization"]["held_out_suspected"],
    }


def line(row: dict[str, Any]) -> str:
    """For a terminal."""
    fd, prdc, floor = row["fd"], row["prdc"], row["fd"]["floor_of_held_out"]
    real = "" if floor is None else f" (held out {floor['value']:.3f})"
    return (
        f"{Path(row['data']).name:16} {row['train']:24} {row['minutes']:3g} min {row['images_seen']:>10,} images  "
        f"{row['eval'] or 'defaults':24} distance {fd['value']:.3f} ± {fd['standard_error']:.3f}{real}  "
        f"precision {prdc['precision']['value']:.2f}  recall {prdc['recall']['value']:.2f}  "
        f"copies suspected {row['copies_suspected']}"
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="as `snowmelt train` takes them")
    parser.add_argument("--minutes", default="2,10,60", help="comma-separated (default: 2,10,60)")
    parser.add_argument("--seeds", default="0", help="comma-separated (default: 0)")
    parser.add_argument("--train", default="", metavar="OPTIONS", help="further options of `snowmelt train`")
    parser.add_argument("-n", type=int, default=1000, help="samples (default: 1000)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="(default: all cores)")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    rows = [json.loads(each) for each in options.out.read_text().splitlines()] if options.out.exists() else []
    minutes, seeds = map(float, options.minutes.split(",")), map(int, options.seeds.split(","))
    for data, budget, seed, each in itertools.product(options.data, minutes, seeds, EVALS):
        values = data, options.train, budget, seed, options.threads, source(), each, options.n
        key = dict(zip(KEY, values, strict=True))
        done = [row for row in rows if all(row[name] == key[name] for name in KEY)]
        if not done:
            done = [row(key)]
            with options.out.open("a") as file:
                file.write(json.dumps(done[0]) + "\n")
        print(line(done[0]), flush=True)


if __name__ == "__main__":
    main()
