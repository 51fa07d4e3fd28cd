"""`snowmelt export`: a model as ONNX, for machines without torch and for browsers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from snowmelt.cli.values import Whole, parse_options

CHECKED_STEPS = 20  # of the samples that are compared with torch's


def export(
    model: Path,
    *,
    onnx: Path,
    sampler: str | None = None,
    steps: Annotated[Whole | None, Parameter(alias="--num_inference_steps")] = None,
    grid: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    clip: Literal["none", "clamp", "dynamic"] | None = None,
    guidance: float | None = None,
    weights: Literal["ema", "raw"] = "ema",
    float16: bool = True,
    web: Path | None = None,
) -> None:
    """Write a model's network and its sampler's table as ONNX, with a script and a page that draw from them.

    What was written is compared with torch, and is not there where the two differ.

    Parameters
    ----------
    model
        A run such as runs/NAME, a model folder, or a checkpoint of another library (`snowmelt convert --help`).
    onnx
        The folder to write, which must not exist: network.onnx in float32, network.fp16.onnx with products in float16
        (and the same of the guide, where samples are led away from one), table.json, draw.py, index.html.
    sampler
        A sampler's name (`snowmelt sampler list`) or a table as JSON. Default: the model's own.
    steps
        Steps of the sampler. Default: the model's own; of another sampler as near to it as 20 to 50 are.
    grid
        Where it stops: trailing, leading, linspace, karras, log-snr or logistic.
    set_
        An option of the sampler or grid, as in eta=1, variance=small, rho=7. May be given several times.
    clip
        Keep estimates of the image in range: none, clamp or dynamic. Default: the model's own.
    guidance
        How strongly the class is followed: 1 is no guidance, 2 a usual value. Default: as the model says, away from the
        weaker guide that it brings and a little from no class.
    weights
        ema: the average; raw: the last step's.
    float16
        Write the networks in half precision too; --no-float16 leaves them out.
    web
        Where npm has put onnxruntime-web (node_modules/onnxruntime-web): what the page needs of it is copied, and the
        folder holds everything.
    """
    from snowmelt import api
    from snowmelt.base.files import quoted, readable_bytes
    from snowmelt.interop.onnx.web import RUNTIME, RUNTIME_FOLDER
    from snowmelt.interop.onnx.write import SCRIPT, export_onnx
    from snowmelt.sampling.tableau import load_tableau

    loaded = api.load(model, weights=weights, device="cpu")
    table = load_tableau(Path(sampler)) if sampler is not None and sampler.endswith(".json") else None

    def plan(steps: int | None) -> api.SamplePlan:
        return api.plan_sampling(
            loaded,
            sampler=table or sampler,
            steps=steps,
            grid=grid,
            options=parse_options(list(set_)),
            clip=clip,
            guidance=guidance,
        )

    chosen = plan(steps)
    levels = loaded.denoiser.schedule.steps or CHECKED_STEPS
    checked = chosen if table is not None else plan(min(CHECKED_STEPS, levels))
    for each in export_onnx(chosen, checked, onnx, web, float16):
        off = each.difference
        print(
            f"{' and '.join(each.files.values())}: {readable_bytes(each.bytes)}; off from torch by {off.network:.1e} "
            f"in one pass, by {off.sample:.1e} (mean {off.mean:.1e}) in samples of {off.steps} steps"
        )
    print(f"Next: python {quoted(onnx / SCRIPT)} --out images.png; or python -m http.server -d {quoted(onnx)}")
    if web is None:
        print(
            f"The page needs {', '.join(RUNTIME)} in {quoted(onnx / RUNTIME_FOLDER)}: npm install onnxruntime-web "
            "has them in node_modules/onnxruntime-web/dist; with --web node_modules/onnxruntime-web they are copied."
        )
