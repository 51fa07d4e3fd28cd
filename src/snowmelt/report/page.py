"""A run's page: one HTML file with everything in it, to open in any browser and to send to anybody."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import free_name, quoted, read_json, write_json, write_text
from snowmelt.data.own import PREVIEW
from snowmelt.evaluation.anatomy import Anatomy
from snowmelt.evaluation.evaluate import FORMAT
from snowmelt.image.png import WRITABLE
from snowmelt.model.bundle import digest_at, load_images
from snowmelt.report.anatomy import draw_anatomy
from snowmelt.report.curves import WORDS, draw_losses
from snowmelt.report.evaluation import COPIES, FOLDER, SAMPLES, compared, drawn, likelihood_rows, measured, picture_of
from snowmelt.report.html import bullets, command, figure, folded, heading, page, paragraph, strip, table
from snowmelt.report.rate import WORDS as RATE_WORDS
from snowmelt.report.rate import draw_rate
from snowmelt.training.config import TrainConfig, load_config
from snowmelt.training.metrics import read_metrics
from snowmelt.training.progress import duration
from snowmelt.training.run import CONFIG, METRICS

PREVIEWS = 8  # that are shown
SUSPECTS = 20  # that are named
COPIES_WORDS = (
    "The samples that are nearest to a training image, beside it, mirrored and moved as it was found. The ratio is the "
    "distance to it over that to others nearby: 0 is the same picture, 1 is no nearer than others."
)
PAGE, SHOWN = "report.html", "shown.json"
QUALITY = ("fd", "kid", "prdc")
ANATOMY_WORDS = (
    "The loss by noise level, between what any linear denoiser loses (grey) and the least that is possible on the "
    "training set (green), each with two standard errors. Shaded grey: worse than linear. Shaded red: held-out images "
    "fare worse than those of training, the network is learning by heart. Below, how far of the way it has come."
)


@dataclass(frozen=True)
class Run:
    """A run as it lies on the disk.

    rows     of metrics.jsonl
    results  (file, content) of eval/, the newest first
    shown    what its model was shown by, see `show`
    """

    folder: Path
    config: TrainConfig
    rows: list[dict[str, Any]]
    results: list[tuple[Path, dict[str, Any]]]
    shown: dict[str, Any] | None

    @staticmethod
    def read(folder: Path) -> Run:
        """From the run's folder; results that cannot be read are left out."""
        results = []
        for path in sorted((folder / FOLDER).glob("*.json"), key=lambda path: -path.stat().st_mtime):
            try:
                result = json.loads(path.read_text(encoding="utf-8"))
                if result["format"] != FORMAT:
                    continue
                compared(result), measured(result)
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
            results.append((path, result))
        return Run(folder, load_config(folder / CONFIG), read_metrics(folder / METRICS), results, _shown(folder))

    @property
    def previews(self) -> list[Path]:
        """The pictures drawn on the way, the newest last."""
        found = (self.folder / "previews").glob("step_*.png")
        return sorted(path for path in found if path.stem.removeprefix("step_").isdecimal())  # no copies of these

    def newest(self, *kinds: str) -> tuple[Path, dict[str, Any]] | None:
        """The newest result that holds one of these."""
        return next((each for each in self.results if any(kind in each[1] for kind in kinds)), None)


def show(run: Path, picture: str, findings: Sequence[tuple[str, str]]) -> None:
    """Have the run's page show this picture of its folder first, and these findings, for as long as the model is this.

    findings  (what was measured, the number in words)
    """
    write_json(run / SHOWN, {"model": digest_at(run, "ema"), "picture": picture, "findings": findings})


def _shown(folder: Path) -> dict[str, Any] | None:
    try:
        shown: dict[str, Any] = read_json(folder / SHOWN)
        kept = shown["model"] == digest_at(folder, "ema") and (folder / shown["picture"]).is_file()
        return shown if kept and table(shown["findings"]) else None
    except (SnowmeltError, KeyError, TypeError, ValueError):  # it is not there, or not what was written
        return None


def draw_command(run: Path) -> str:
    """The command that draws from a run: into a new folder, with what its model has to be told."""
    images, paired = load_images(run), load_config(run / CONFIG).data.cond_image
    folder = run / "samples"
    words = f"snowmelt sample {quoted(run)} -n 64 --out {quoted(free_name(folder) if folder.exists() else folder)}"
    words += "" if paired is None else f" --cond-image {quoted(paired)}"
    return words + " --format npz" * ((images.value_range.dtype, images.channels) not in WRITABLE)


def write_run_page(run: Path) -> Path:
    """Write RUN/report.html from what the run has recorded and what has been measured of it."""
    read = Run.read(run)
    parts = [
        f"<h1>{html.escape(read.config.name)}</h1>",
        paragraph(_about(read), "about"),
        *_samples(read),
        *_quality(read),
        *_copies(read),
        *_anatomy(read),
        *_likelihood(read),
        *_training(read),
        *_previews(read),
        *_data(read),
        *_again(read),
        heading("Settings"),
        folded("Everything that decides what the run does", read.config.to_yaml()),
    ]
    path = run / PAGE
    write_text(path, page(read.config.name, parts))
    return path


def _about(run: Run) -> str:
    config = run.config
    channels, (height, width) = config.data.channels, config.data.size
    text = (
        f"{config.data.source}: {channels} x {height} x {width}; preset {config.preset}; predicts "
        f"{config.process.prediction} on the {config.process.schedule} schedule; {config.budget}"
    )
    losses = [row for row in run.rows if row.get("loss") is not None]
    if losses:
        text += f"; {losses[-1]['images']:,} images in {duration(losses[-1]['elapsed'])}"
    return text


def _samples(run: Run) -> list[str]:
    if run.shown is not None:
        grid = run.folder / run.shown["picture"]
        return [heading("Samples"), figure(grid.read_bytes(), "New images, drawn from noise.")]
    for path, result in run.results:
        picture = picture_of(path, SAMPLES)
        if picture.is_file() and drawn(result):
            words = f"New images, drawn from noise: {compared(result).split(' beside ')[0]}."
            return [heading("Samples"), figure(picture.read_bytes(), words)]
    return []


def _quality(run: Run) -> list[str]:
    parts = [] if run.shown is None else [heading("Measured"), table(run.shown["findings"])]
    found = run.newest(*QUALITY)
    if found is None:
        return parts
    path, result = found
    parts = parts or [heading("Measured")]
    return [
        *parts,
        paragraph(f"{compared(result)}. After ± stand two standard errors."),
        table(measured(result)),
        bullets(_of_distances(result)),
        paragraph(_protocol(path, result), "protocol"),
    ]


def _of_distances(result: dict[str, Any]) -> list[str]:
    """The findings that are not said in a section of their own."""
    elsewhere = [
        *result.get("anatomy", {}).get("advice", ()),
        *result.get("memorization", {}).get("sentences", ()),
        *result.get("nll", {}).get("findings", ()),
    ]
    return [each for each in result["findings"] if each not in elsewhere]


def _protocol(path: Path, result: dict[str, Any]) -> str:
    features = result["protocol"]["features"]
    return (
        f"{path.name}, {result['when']}, snowmelt {result['snowmelt']}. Features: {features['name']}, SHA-256 "
        f"{features['sha256'][:16]}..., {features['dimensions']:,} numbers; resized: {features['resize']}; "
        f"{features['remark']}. Pixels: {result['protocol']['pixels']}."
    )


def _whence(run: Run, path: Path, result: dict[str, Any]) -> str:
    """Of what a result is, which may be of other samples than the model's own, or of other weights than it has now."""
    model = result["model"]
    own = model is None or model["sha256"] == digest_at(run.folder, "ema")
    others = "" if own else f", of other weights of the run (step {model['step']})"
    return paragraph(f"{compared(result)}{others}: {path.name}.", "protocol")


def _copies(run: Run) -> list[str]:
    found = run.newest("memorization")
    if found is None:
        return []
    path, result = found
    memorization, picture = result["memorization"], picture_of(path, COPIES)
    parts = [heading("Copies of training images"), _whence(run, *found), bullets(memorization["sentences"])]
    if memorization["suspected"]:
        rows = [
            (each["sample"], f"{each['train']} ({each['transformation']}), {each['ratio']:.2f} of the way to others")
            for each in memorization["suspected"][:SUSPECTS]
        ]
        parts.append(table(rows))
    if picture.is_file():
        parts.append(figure(picture.read_bytes(), COPIES_WORDS))
    return parts


def _likelihood(run: Run) -> list[str]:
    found = run.newest("nll")
    if found is None:
        return []
    _, result = found
    nll, of = result["nll"], result["protocol"]["likelihood"]
    return [
        heading("Likelihood"),
        _whence(run, *found),
        paragraph(
            f"Of {of['images']:,} {of['split']} images; decoder: {nll['measurement']['decoder']}; dequantisation: "
            f"{nll['measurement']['dequantisation']}.",
            "protocol",
        ),
        table(likelihood_rows(nll)),
        bullets(nll["findings"]),
        figure(draw_rate(nll), RATE_WORDS, plot=True),
    ]


def _anatomy(run: Run) -> list[str]:
    """Of the newest evaluation, or else of the run's own last row of it."""
    found = run.newest("anatomy")
    rows = [row["anatomy"] for row in run.rows if "anatomy" in row]
    if found is None and not rows:
        return []
    anatomy = Anatomy.from_json(found[1]["anatomy"] if found is not None else rows[-1])
    return [
        heading("The loss between its bounds"),
        *([] if found is None else [_whence(run, *found)]),
        figure(draw_anatomy(anatomy), ANATOMY_WORDS, plot=True),
        bullets(anatomy.advice()),
    ]


def _training(run: Run) -> list[str]:
    drawn = draw_losses(run.rows)
    return [] if drawn is None else [heading("Training"), figure(drawn, WORDS, plot=True)]


def _previews(run: Run) -> list[str]:
    paths = run.previews[-PREVIEWS:]
    if not paths:
        return []
    shown = [figure(path.read_bytes(), f"step {int(path.stem[5:]):,}") for path in paths]
    words = "The same seeds again and again: on the left the weights of that step, on the right their average."
    if run.config.data.cond_image is not None:
        words = (
            "The same seeds again and again: on the left what they are made from, then the weights of that step, on "
            "the right their average."
        )
    return [heading("On the way"), paragraph(words), strip(shown)]


def _data(run: Run) -> list[str]:
    path = run.folder / PREVIEW
    return [heading("Data"), figure(path.read_bytes(), "What the network was shown.")] if path.is_file() else []


def _again(run: Run) -> list[str]:
    """The commands that make all this again."""
    config, commands = run.config, []
    if config.command is not None:
        commands.append(config.command)
    commands.append(draw_command(run.folder))
    commands += [each for each in (result.get("command") for _, result in run.results[:1]) if each]
    parts = [heading("Again"), command(*commands)]
    if config.budget.minutes is not None and run.rows:
        steps = max((row["step"] for row in run.rows), default=0)
        # What the minutes have decided, too.
        flags = f"--steps {steps} --preset {config.preset} --dropout {config.network['dropout']:g}"
        parts.append(
            paragraph(
                f"A run of so many minutes takes as many steps as the machine can: here {steps:,}. As many of the same "
                f"elsewhere: {flags} --augment {config.augment:g} instead of --minutes."
            )
        )
    return parts
