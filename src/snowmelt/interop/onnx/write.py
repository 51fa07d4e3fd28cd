"""The exported folder: networks, table, script and page, checked before it is there."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.extras import extra_module
from snowmelt.base.files import atomic_folder
from snowmelt.interop.convert import require_free
from snowmelt.interop.onnx.check import Difference, compare
from snowmelt.interop.onnx.half import halve
from snowmelt.interop.onnx.network import write_network
from snowmelt.interop.onnx.table import sampler_table
from snowmelt.interop.onnx.web import copy_page, copy_runtime, find_runtime
from snowmelt.sampling.plan import SamplePlan

TABLE, SCRIPT = "table.json", "draw.py"
ENDINGS = {"float32": ".onnx", "float16": ".fp16.onnx"}
# One pass, relative; then a sample in [-1, 1]: the largest difference in float32, the mean in float16, where it is a
# level of 256.
LIMITS = {"float32": (1e-3, 1e-3), "float16": (3e-2, 2 / 255)}


@dataclass(frozen=True)
class Exported:
    """What was written in one precision: files and bytes, and how far from torch they are."""

    precision: str
    files: dict[str, str]
    bytes: int
    difference: Difference


def export_onnx(
    plan: SamplePlan, checked: SamplePlan, destination: Path, web: Path | None = None, float16: bool = True
) -> list[Exported]:
    """Write a model on the CPU in float32 as ONNX into a folder that must not exist; returns how good each file is.

    plan     how images are drawn, for the table
    checked  the plan whose samples are compared with torch's
    web      where onnxruntime-web is, to be copied beside the page
    float16  write it in this precision too
    Raises SnowmeltError, and leaves nothing behind, where ONNX Runtime computes something else than torch.
    """
    require_free(destination)
    runtime = extra_module("onnxruntime", "onnx", "Export to ONNX")
    source = None if web is None else find_runtime(web)
    table, other = sampler_table(plan), sampler_table(checked)
    with atomic_folder(destination) as folder:
        found = []
        for precision, ending in list(ENDINGS.items())[: 1 + float16]:
            files = _write_networks(plan, folder, ending)
            network, guide = (_session(runtime, folder, files.get(name)) for name in ("network", "guide"))
            difference = compare(checked, other, network, guide)
            _require_near(precision, difference)
            size = sum((folder / file).stat().st_size for file in files.values())
            found.append(Exported(precision, files, size, difference))
        table["files"] = {each.precision: {**each.files, "bytes": each.bytes} for each in found}
        (folder / TABLE).write_text(json.dumps(table, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        shutil.copyfile(Path(__file__).with_name(SCRIPT), folder / SCRIPT)
        copy_page(folder)
        if source is not None:
            copy_runtime(source, folder)
    return found


def _write_networks(plan: SamplePlan, folder: Path, ending: str) -> dict[str, str]:
    """The files of one precision; those of float32 come first, and the others are made of them."""
    networks = {"network": plan.model.denoiser.network}
    if plan.away == "own" and plan.model.guide is not None:
        networks["guide"] = plan.model.guide.network
    for name, network in networks.items():
        if ending == ENDINGS["float32"]:
            write_network(network, plan.model.images, folder / f"{name}{ending}")
        else:
            halve(folder / f"{name}{ENDINGS['float32']}", folder / f"{name}{ending}")
    return {name: f"{name}{ending}" for name in networks}


def _session(runtime: Any, folder: Path, name: str | None) -> Any:
    return None if name is None else runtime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])


def _require_near(precision: str, difference: Difference) -> None:
    """Refuse what computes something else."""
    most_pass, most_sample = LIMITS[precision]
    sample = difference.sample if precision == "float32" else difference.mean
    if difference.network <= most_pass and sample <= most_sample:  # False for NaN too
        return
    way_out = {"float32": "Another release of onnxruntime or torch may do better.", "float16": "Export --no-float16."}
    raise SnowmeltError(
        f"In {precision} ONNX Runtime computes something else than torch: {difference.network:.1e} off in one pass of "
        f"the network (at most {most_pass:g}), {sample:.1e} in samples of {difference.steps} steps ({most_sample:g}).",
        f"Nothing was written. {way_out[precision]}",
    )
