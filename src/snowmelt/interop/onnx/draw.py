"""Images from the networks of this folder, with numpy and ONNX Runtime (and Pillow, unless --out is an .npy file).

python draw.py --count 16 --seed 0 --class NAME --precision float16 --out images.png
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


def open_networks(folder: Path, files: Any, provider: str) -> Any:
    """The network and, where there is one, the guide."""
    paths = [folder / files[name] if name in files else None for name in ("network", "guide")]
    return [path and onnxruntime.InferenceSession(path, providers=[provider]) for path in paths]


def noise(seeds: Any, row: int, shape: Any) -> Any:
    """Standard normal [B, *shape] float32: what `snowmelt sample` draws for these seeds, by Philox and Box & Muller."""
    pairs = (math.prod(shape) + 1) // 2
    bits = [np.random.Philox(key=np.array([seed, row], np.uint64)).random_raw(pairs) for seed in seeds]
    words = np.stack(bits).view(np.uint32).reshape(len(seeds), 2, pairs).astype(np.float32)
    radius = np.sqrt(np.maximum(-2 * np.log((words[:, 0] + np.float32(0.5)) * np.float32(2.0**-32)), 0))
    angle = words[:, 1] * np.float32(2 * math.pi * 2.0**-32)
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return normal[:, : math.prod(shape)].reshape(len(seeds), *shape)


def denoise(table: Any, row: Any, network: Any, guide: Any, x: Any, told: Any) -> Any:
    """D, the estimate of the clean image, guided and clipped; and f, the learned part of the noise's variance."""

    def estimate(network: Any, told: Any) -> Any:
        c_noise = np.full(len(x), row["c_noise"], np.float32)
        F = network.run(None, {"x": row["c_in"] * x, "c_noise": c_noise, **told})[0]
        F, v = np.split(F, 2, axis=1) if table["learned_variance"] else (F, None)
        return row["c_skip"] * x + row["c_out"] * F, None if v is None else (v + 1) / 2

    D, fraction = estimate(network, told)
    if row["guided"]:
        withheld = {name: np.full_like(told[name], value) for name, value in table["withheld"].items()}
        if table["class_guidance"] != 1:
            none, _ = estimate(network, {**told, **withheld})
            D = none + table["class_guidance"] * (D - none)
        away, _ = estimate(guide, told) if table["guide"] else estimate(network, {**told, **withheld})
        D = away + table["guidance"] * (D - away)
    if table["clip"] != "none":
        dynamic = table["clip"] == "dynamic"
        bound = np.quantile(abs(D), 0.995, axis=(1, 2, 3), keepdims=True).clip(1).astype(np.float32) if dynamic else 1
        D = D.clip(-bound, bound) / bound
    return D, fraction


def sample(table: Any, network: Any, guide: Any, x: Any, draw: Any, told: Any) -> Any:
    """Follow the table's rows from x, noise [B, C, H, W], to images in [-1, 1].

    draw  k -> the noise of row k
    told  what the networks are given beside x and c_noise
    """
    states: list[Any] = [x]
    outputs: list[Any] = []
    fraction: Any = None
    for k, row in enumerate(table["rows"]):
        if row["b"]:
            D, fraction = denoise(table, row, network, guide, states[0], told)
            outputs = [D, *outputs[:3]]
        terms = [*zip(row["a"], states, strict=False), *zip(row["b"], outputs, strict=False)]
        x = sum((number * array for number, array in terms if number), np.zeros_like(x))
        if row["c"] > 0:
            x = x + draw(k) * (row["c_hi"] ** fraction * row["c"] ** (1 - fraction) if "c_hi" in row else row["c"])
        states = [x, *states[:3]]
    return x


def tell(table: Any, seeds: Any, classes: Any) -> Any:
    """The networks' other inputs: seed s has class s of those that are named, in turn (of all, unless one is)."""
    told: dict[str, Any] = {}
    names = [*(table["class_names"] or []), "none"]
    chosen = [*map(names.index, classes)] or [*range(max(1, len(names) - 1))]
    label = np.array([chosen[seed % len(chosen)] for seed in seeds], np.int64)
    if table["class_names"]:
        told["label"] = label
    if table["values"]:
        examples = table["values"]["examples"]
        told["values"] = np.array([examples[seed % len(examples)] for seed in seeds], np.float32)
        told["withheld"] = (label == len(names) - 1) & bool(classes)
    return told


def main() -> None:
    """Draw images as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=16, help="how many; image i has seed SEED + i")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--class", dest="classes", action="append", default=[], help="may be given several times")
    parser.add_argument("--precision", default="float32", help="float32 or float16")
    parser.add_argument("--provider", default="CPUExecutionProvider", help="CUDAExecutionProvider on a GPU")
    parser.add_argument("--out", default="images.png", help="a PNG with all of them, or .npy: [N, H, W, C]")
    asked = parser.parse_args()
    folder = Path(__file__).parent
    table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    names = [*(table["class_names"] or []), "none"]
    if unknown := {*asked.classes} - {*names}:
        parser.error(f"--class {unknown.pop()}: choose from {', '.join(names)}")
    if asked.precision not in table["files"]:
        parser.error(f"--precision {asked.precision}: choose from {', '.join(table['files'])}")
    network, guide = open_networks(folder, table["files"][asked.precision], asked.provider)
    shape = (table["channels"], table["height"], table["width"])

    def batch(seeds: Any) -> Any:
        x = noise(seeds, 0, shape) * np.float32(table["start"])
        told = tell(table, seeds, asked.classes)
        return sample(table, network, guide, x, lambda k: noise(seeds, k + 1, shape), told)

    seeds = range(asked.seed, asked.seed + asked.count)
    x = np.concatenate([batch(seeds[i : i + 64]) for i in range(0, asked.count, 64)])
    kind, low, high = (table["value_range"][name] for name in ("dtype", "low", "high"))
    unit = np.moveaxis((x.clip(-1, 1) + 1) / 2, 1, -1)
    if asked.out.endswith(".npy"):
        values = unit * (high - low) + low
        np.save(asked.out, (values if kind == "float32" else np.rint(values)).astype(kind))
        return
    from PIL import Image

    pixels = np.rint(unit * 255).astype(np.uint8)[..., : min(shape[0], 4)]
    columns = math.ceil(math.sqrt(asked.count))
    mode = "RGBA" if pixels.shape[3] in (2, 4) else "RGB"
    grid = Image.new(mode, (columns * shape[2], math.ceil(asked.count / columns) * shape[1]), "white")
    for i, picture in enumerate(pixels):
        image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
        grid.paste(image.convert(mode), (i % columns * shape[2], i // columns * shape[1]))
    grid.save(asked.out)


if __name__ == "__main__":
    main()
