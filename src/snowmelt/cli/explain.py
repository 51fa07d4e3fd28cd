"""`snowmelt explain`: the eight statements, shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def explain(
    *,
    out: Path = Path("explain"),
    data: str | None = None,
    model: Path | None = None,
    fast: Annotated[bool, Parameter(negative="")] = False,
    device: str = "auto",
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Write a small site that shows how diffusion models work, in eight chapters made on the spot.

    Parameters
    ----------
    out
        The folder for the pages; open its index.html.
    data
        Your own images, as for `snowmelt train`: shown in the chapters on the chain, the jump and the targets.
    model
        Your own run or model: its film strip, and its errors. Its images are its own, or those of --data.
    fast
        In under a minute, with toys that are trained for seconds; numbers are coarser.
    device
        auto, cpu, cuda, cuda:1 or mps: where models of pictures train and sample.
    overwrite
        Replace a site that is there already.
    """
    from tempfile import TemporaryDirectory
    from time import monotonic

    from snowmelt.base.files import make_folder
    from snowmelt.explain.setting import FAST, FULL, Setting
    from snowmelt.explain.site import make_chapters, require_place, write_site
    from snowmelt.report.status import Status

    require_place(out, overwrite)
    began = monotonic()
    with TemporaryDirectory(prefix="snowmelt-") as folder, Status() as status:
        setting = Setting(Path(folder), FAST if fast else FULL, data, model, device, status.tell)
        setting.check()
        make_folder(out)  # before minutes are spent
        made = make_chapters(setting)
        about = setting.about(monotonic() - began)
    index = write_site([chapter for chapter, _ in made], out, about)
    for chapter, seconds in made:
        mark = "holds" if chapter.measured.holds else "FAILS"
        print(f"{mark} {chapter.number}. {chapter.measured}  ({seconds:.0f} s)")
    size = sum(path.stat().st_size for path in out.glob("*.html"))
    print(f"{about}\nOpen:       {index}  ({size / 1e6:.1f} MB in all; it needs no network)")
    return 0 if all(chapter.measured.holds for chapter, _ in made) else 1
