"""Does memory stay flat on a data set that fits neither memory nor disk?

    python -m benchmarks.large_shards [--gigabytes 100] [--minutes 10]

One shard of 1,000 JPEGs of 400 x 400 pixels is linked under as many names as make 100 GB, and trained on with nothing
kept (SNOWMELT_CACHE_LIMIT=0, and memory said to be too small): every picture is decoded when it is used, from wherever
it lies in the 100 GB. A line is printed, and a row written, every ten seconds: images seen, and the process's memory.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

RESULT = Path(__file__).parent / "results" / "large_shards.json"
EVERY = 10  # seconds


def write_shard(path: Path, count: int) -> None:
    """A WebDataset shard of random pictures of ten classes."""
    random = np.random.default_rng(0)
    with tarfile.open(path, "w") as shard:
        for number in range(count):
            small = Image.fromarray(random.integers(0, 256, (75, 75, 3), np.uint8))
            file = io.BytesIO()
            small.resize((400, 400), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
            for name, content in (
                (f"{number:06}.jpg", file.getvalue()),
                (f"{number:06}.cls", str(number % 10).encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))


def resident() -> int:
    """Bytes of this process's own memory: pages of files that it has mapped are the system's to drop."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(fields["RssAnon"].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=100)
    parser.add_argument("--minutes", type=float, default=10)
    arguments = parser.parse_args()
    os.environ["SNOWMELT_CACHE_LIMIT"] = "0"
    import snowmelt
    from snowmelt.data import decoded
    from snowmelt.training.metrics import read_metrics

    decoded.fits_memory = lambda size: False  # as on a machine that is smaller than the data
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        shards = Path(scratch) / "shards"
        shards.mkdir()
        write_shard(shards / "train-00000.tar", 1000)
        one = (shards / "train-00000.tar").stat().st_size
        count = round(arguments.gigabytes * 1e9 / one)
        for number in range(1, count):
            os.link(shards / "train-00000.tar", shards / f"train-{number:05}.tar")
        print(f"{count:,} shards of {one / 1e6:.1f} MB: {count * one / 1e9:.1f} GB", flush=True)
        start, over = time.monotonic(), threading.Event()

        def watch() -> None:
            run = Path(scratch) / "run"
            while not over.wait(EVERY):
                seen = [row["images"] for row in read_metrics(run / "metrics.jsonl") if "images" in row]
                rows.append(
                    {
                        "seconds": round(time.monotonic() - start),
                        "images": seen[-1] if seen else 0,
                        "megabytes": round(resident() / 1e6),
                    }
                )
                print(rows[-1], flush=True)

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            run = snowmelt.train(shards, out=Path(scratch) / "run", minutes=arguments.minutes, size=64, flip=False)
        finally:
            over.set()
            watching.join()
        waits = [row["waiting"] for row in read_metrics(run / "metrics.jsonl") if row.get("waiting") is not None]
    training = [row for row in rows if row["images"] > 0]
    half = training[len(training) // 2 :]
    result = {
        "gigabytes": round(count * one / 1e9, 1),
        "samples": count * 1000,
        "seconds_before_training": rows[[row["images"] > 0 for row in rows].index(True)]["seconds"],
        "images_seen": training[-1]["images"],
        "megabytes_at_first": training[0]["megabytes"],
        "megabytes_in_the_second_half": [min(r["megabytes"] for r in half), max(r["megabytes"] for r in half)],
        "waiting_share_of_a_step": round(sum(waits) / len(waits), 4),
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "rows"}, indent=2))


if __name__ == "__main__":
    main()
