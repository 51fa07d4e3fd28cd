"""`snowmelt data`: what is in a folder of images, before a run; and what is kept of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import user_path
from snowmelt.cli.values import Whole, parse_size, spoken
from snowmelt.data.own import PREVIEW

MADE_BY = "snowmelt data check"


def check(
    data: str,
    *,
    size: str | None = None,
    channels: Whole | None = None,
    labels: str = "auto",
    fit: Literal["crop", "pad", "stretch"] = "crop",
    linear_light: Annotated[bool, Parameter(negative="")] = False,
    preview: Path = Path(PREVIEW),
    device: str = "auto",
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Say what a data set holds, what is broken or there twice, and what training would make of it.

    Parameters
    ----------
    data
        As for `snowmelt train`.
    size
        Pixels: 64 or 64x96 (height x width). Default: proposed from the data.
    channels
        1, 2, 3 or 4, or as many as arrays have. Default: decided from the data.
    labels
        auto, none, folder, prefix, FILE.csv, FILE.jsonl, or a column of a Hugging Face table.
    fit
        How other proportions are brought to the size: crop, pad or stretch.
    linear_light
        Resize as light adds up, not as sRGB stores it.
    preview
        The picture to write: 64 images as the model will see them.
    device
        What the proposed recipe is for: auto, cpu, cuda or mps.
    json_
        Print it as JSON, all names included.
    """
    given = dict(locals())
    from snowmelt.base.device import choose_device
    from snowmelt.data.check import inspect
    from snowmelt.image.grid import image_grid
    from snowmelt.image.png import save_png
    from snowmelt.training.progress import Reporter
    from snowmelt.training.resolve import proposed

    chosen_device = choose_device(device)
    _refuse_place(preview, data)
    found = inspect(
        data,
        size=parse_size(size),
        channels=channels,
        labels=labels,
        fit=fit,
        linear_light=linear_light,
        progress=Reporter(quiet=json_).reading,
    )
    report = found.report
    defaults = proposed(
        report.target,
        report.readable,
        report.classes,
        chosen_device,
        found.handedness,
        asked=[name for name in ("size", "channels") if given[name] is not None],
        test=found.test,
    )
    # Shown before the picture is written, for which there may be no room.
    if json_:
        print(json.dumps({**found.to_json(), "defaults": defaults, "preview": str(preview)}, indent=2), flush=True)
    else:
        for line in found.lines():
            print(line)
        for name, entry in defaults.items():
            print(f"  {name:13} {entry['value']!s:10} {entry['why']}")
    save_png(preview, image_grid(found.preview), {"Software": MADE_BY})
    if not json_:
        print(f"Look at {preview}\nNext: {spoken('train', check, {**given, 'preview': Path(PREVIEW)})}", flush=True)


def _is_preview(path: Path) -> bool:
    """Whether a picture is a preview of before, which may be written over."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.info.get("Software") == MADE_BY
    except OSError:
        return False


def _refuse_place(preview: Path, data: str) -> None:
    """Refuse to write the preview over a picture, or to where it would be taken for one of the data set's."""
    if preview.suffix.lower() != ".png":
        raise SnowmeltError(f"--preview {preview}: a PNG is written.", "Expected a name that ends in .png.")
    if preview.name != PREVIEW and preview.is_file() and not _is_preview(preview):
        raise SnowmeltError(f"--preview {preview} is there already.", f"Choose another name, or {PREVIEW}.")
    folder = user_path(data)
    if preview.name != PREVIEW and folder.is_dir() and folder.resolve() in preview.resolve().parents:
        raise SnowmeltError(
            f"--preview {preview} lies among the images of {data}, and would be taken for one.",
            f"Choose another place, or the name {PREVIEW}, which is passed over.",
        )


def cache(
    *,
    clear: Annotated[bool, Parameter(negative="")] = False,
    limit: str | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """List the decoded images that are kept so that no run decodes them again, or delete them.

    Set SNOWMELT_CACHE to another folder, and SNOWMELT_CACHE_LIMIT to the most they may take (0 keeps none).

    Parameters
    ----------
    clear
        Delete all of it. Runs that are using it go on.
    limit
        Delete what was not used for longest until this much is left: 20GB.
    json_
        Print it as JSON.
    """
    import time

    from snowmelt.base.files import readable_bytes
    from snowmelt.data.cache import open_cache, parse_bytes

    if clear and limit is not None:
        raise SnowmeltError(
            "--clear and --limit say two things.", "--clear deletes everything; --limit keeps the rest."
        )
    kept = open_cache()
    most = 0 if clear else None if limit is None else parse_bytes(limit, f"--limit {limit}")
    deleted = [] if most is None else kept.prune(most)
    entries = kept.entries()
    total = sum(entry.bytes for entry in entries)
    if json_:
        listed = [
            {"key": entry.key, "name": entry.about["name"], "images": entry.about["images"], "bytes": entry.bytes}
            | {"target": entry.about["target"], "used": entry.used}
            for entry in entries
        ]
        gone = [entry.key for entry in deleted]
        print(json.dumps({"folder": str(kept.root), "limit": kept.limit, "entries": listed, "deleted": gone}, indent=2))
        return
    if deleted:
        freed = readable_bytes(sum(entry.bytes for entry in deleted))
        print(f"Deleted {len(deleted):,} data set{'s' * (len(deleted) != 1)}, {freed}.")
    for entry in entries:
        about, target = entry.about, entry.about["target"]
        shape = f"{target['height']}x{target['width']}x{target['channels']} {target['dtype']}"
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        print(
            f"{readable_bytes(entry.bytes):>9}  {about['images']:>10,} images  {shape:18}  used {when}  {about['name']}"
        )
    print(f"{readable_bytes(total)} in {kept.root}; at most {readable_bytes(kept.limit)} are kept")
    if entries:
        print("Delete with: snowmelt data cache --clear, or --limit 20GB")
