"""`snowmelt demo`: the whole way in about a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from snowmelt.cli.values import Whole

COUNT, CLASSES = 100, 10
FILM_STEPS = 60  # enough for frames at equal steps of what is kept of a digit
PICTURE = "digits.png"


def demo(
    *,
    out: Path = Path("runs/demo"),
    minutes: float = 1.0,
    seed: Whole = 0,
    device: str = "auto",
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Train on the 1,797 bundled 8x8 digits, draw 100 new ones, measure them, and write a page and a picture of it.

    Parameters
    ----------
    out
        The run's folder.
    minutes
        How long to train.
    seed
        Everything random follows from it.
    device
        auto, cpu, cuda, cuda:1 or mps.
    overwrite
        Replace a demo that is there already.
    """
    import shutil

    import torch

    from snowmelt import api
    from snowmelt.base.device import choose_device
    from snowmelt.base.errors import SnowmeltError
    from snowmelt.base.files import quoted
    from snowmelt.data.pipeline import load_data
    from snowmelt.image.codec import to_network
    from snowmelt.image.png import save_png
    from snowmelt.model.asked import ask
    from snowmelt.report.evaluation import default_path, write_pictures, write_result
    from snowmelt.report.film import film, film_and_grid
    from snowmelt.report.judge import judge
    from snowmelt.report.page import show, write_run_page
    from snowmelt.report.samples import SampleWriter
    from snowmelt.training.config import load_config
    from snowmelt.training.progress import Reporter
    from snowmelt.training.resolve import Wishes, check_wishes
    from snowmelt.training.run import CONFIG, was_stopped

    if out.exists():
        is_run = (out / CONFIG).is_file()
        if not overwrite or not is_run or load_config(out / CONFIG).data.source != "digits":
            what = "already holds a run" if is_run else "exists and is no run"
            raise SnowmeltError(f"{out} {what}.", "Add --overwrite to replace a demo, or choose another --out.")
        # What is wrong with them is told before anything is lost.
        check_wishes(Wishes(minutes=minutes, seed=seed), choose_device(device), 1)
        shutil.rmtree(out)
    run = api.train("digits", out=out, minutes=minutes, seed=seed, device=device, reporter=Reporter())
    if was_stopped(run):  # by Ctrl-C, which was meant for the whole command
        raise KeyboardInterrupt

    print(f"Drawing {COUNT} new digits ...", flush=True)
    model = api.load(run, device=device)
    plan = api.plan_sampling(model)
    seeds = range(COUNT)
    asked = ask(model.images, seeds)
    samples = []
    with SampleWriter(run / "samples", plan, "png", overwrite=False) as writer:
        for x in writer.track(plan.batches(seeds, asked, COUNT), seeds, asked):
            samples.append(x)
            writer.add(x)
    frames = film(api.plan_sampling(model, steps=FILM_STEPS), range(CLASSES))
    save_png(run / PICTURE, film_and_grid(frames, torch.cat(samples)))

    data = load_data("digits")
    training = to_network(data.training.images[:], data.value_range)
    drawn = judge(torch.cat(samples).clamp(-1, 1), torch.tensor(asked.labels), training, data.training.labels)
    real = judge(
        to_network(data.holdout.images[:], data.value_range), data.holdout.labels, training, data.training.labels
    )
    findings = [
        (
            "Recognised",
            f"{drawn.agreement or 0:.0%} of the new digits have a nearest training image of the class asked for; "
            f"of real, held-out digits {real.agreement or 0:.0%} do",
        ),
        (
            "New",
            f"mean distance to the nearest training image {drawn.distance:.3f}; for held-out digits "
            f"{real.distance:.3f}; exact copies {drawn.copies:.0%}",
        ),
    ]
    for name, words in findings:
        print(f"{name + ':':12}{words}")
    found = api.evaluate(run, metrics=("anatomy",), device=device)
    for line in found.findings:
        print(f"{'Loss:':12}{line}")
    result = write_result(found.result, default_path(found.result, run))
    write_pictures(found, result)
    show(run, PICTURE, findings)
    page = write_run_page(run)
    print(f"Look at     {run / PICTURE} and {page}")
    print(f"Next:       snowmelt eval {quoted(run)}, which measures all there is to measure")
    print("Then:       snowmelt train fashion-mnist --minutes 10, or a folder of your own: snowmelt train photos/")
