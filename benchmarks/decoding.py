"""How fast pictures are brought into the cache, against Pillow alone; and whether training ever waits for them.

    python -m benchmarks.decoding [--images 10000] [--pairs 5] [--minutes 2]

Makes a folder of JPEGs of 256 x 256 pixels, then takes turns: Pillow alone (two threads; opened, decoded, resized to
64 x 64 by Lanczos: whole, and with the JPEG decoder's own reduction) and `load_data` into an empty cache, headers,
hashes and files included. Then it trains on them and reads from metrics.jsonl how long steps waited.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

import snowmelt
from snowmelt.data.cache import Cache
from snowmelt.data.pipeline import load_data
from snowmelt.training.metrics import read_metrics

THREADS = 2
RESULT = Path(__file__).parent / "results" / "decoding.json"


def make_pictures(folder: Path, count: int) -> None:
    """Random fields with detail at every scale: JPEGs of some 24 kB, as photographs of that size have."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        x = np.full((256, 256, 3), 128, np.float32)
        for side, amount in ((4, 60), (16, 35), (64, 18), (256, 7)):
            grid = random.normal(size=(side, side, 3)).astype(np.float32)
            planes = [Image.fromarray(grid[..., c]).resize((256, 256), Image.Resampling.BICUBIC) for c in range(3)]
            x += amount * np.stack([np.asarray(plane) for plane in planes], -1)
        Image.fromarray(x.clip(0, 255).astype(np.uint8)).save(folder / f"{number:06}.jpg", quality=90)


def pillow(paths: list[Path], reduced: bool) -> None:
    """What Pillow does for these pictures, and nothing else."""

    def read(path: Path) -> None:
        with Image.open(path) as image:
            if reduced:
                image.draft("RGB", (128, 128))
            np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS))

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(read, paths):
            pass


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=2.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        make_pictures(root / "pictures", arguments.images)
        paths = sorted((root / "pictures").iterdir())
        cache = Cache(root / "cache", 10**12)

        def cached() -> None:
            load_data(root / "pictures", size=64, cache=cache)

        rows = []
        for _ in range(arguments.pairs):
            shutil.rmtree(cache.root, ignore_errors=True)
            row = {
                "pillow_whole": seconds(lambda: pillow(paths, reduced=False)),
                "pillow_reduced": seconds(lambda: pillow(paths, reduced=True)),
                "cached": seconds(cached),
                "again": seconds(cached),
            }
            rows.append(row)
            print(", ".join(f"{name} {len(paths) / taken:,.0f}/s" for name, taken in row.items()), flush=True)
        result = {"images": arguments.images, "images_per_second": {}, "ratio_of_speeds": {}}
        for name in rows[0]:
            result["images_per_second"][name] = round(len(paths) / statistics.median(row[name] for row in rows))
        for name in ("pillow_whole", "pillow_reduced"):
            ratios = sorted(row[name] / row["cached"] for row in rows)
            result["ratio_of_speeds"][name] = [round(r, 3) for r in (statistics.median(ratios), ratios[0], ratios[-1])]
        run = snowmelt.train(root / "pictures", size=64, out=root / "run", minutes=arguments.minutes, log_every=1)
        waits = sorted(row["waiting"] for row in read_metrics(run / "metrics.jsonl") if row.get("waiting") is not None)
        result["waiting_share_of_a_step"] = {
            "mean": round(statistics.fmean(waits), 5),
            "99 of 100 steps below": waits[99 * len(waits) // 100],
            "steps": len(waits),
        }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
