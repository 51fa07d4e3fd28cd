"""A model card: the page that a model is shown with where it is published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from snowmelt.model.bundle import ImageSpec, Model

HERE = "PATH/TO/THIS/FOLDER"


@dataclass(frozen=True)
class Card:
    """What a model card shows beside how to use the model.

    grid      a PNG of its samples
    measured  (what, its value in words)
    compared  what was compared with what, for these
    """

    grid: bytes | None = None
    measured: Sequence[tuple[str, str]] = ()
    compared: str = ""


def card_text(model: Model, images: ImageSpec, card: Card, library: str, use: str) -> str:
    """The card in Markdown, with the head that Hugging Face reads.

    library  that the files are for: diffusers or snowmelt
    use      how the model is used, in Markdown
    """
    parts = [
        f"---\nlibrary_name: {library}\npipeline_tag: unconditional-image-generation\ntags:\n- snowmelt\n---",
        "# A diffusion model of images",
        *(["![Samples](grid.png)"] if card.grid is not None else []),
        "\n".join(f"- {fact}" for fact in _facts(model, images)),
        "## Use",
        use,
    ]
    if card.measured:
        table = "\n".join(f"| {name.strip()} | {value} |" for name, value in card.measured)
        parts += ["## Measured", card.compared, f"| what | value |\n| --- | --- |\n{table}"]
    return "\n\n".join(parts) + "\n"


def _facts(model: Model, images: ImageSpec) -> list[str]:
    schedule = model.denoiser.schedule
    levels = "schedule" if schedule.steps is None else f"schedule of {schedule.steps} noise levels"
    numbers = sum(parameter.numel() for parameter in model.denoiser.network.parameters()) / 1e6
    kind = type(model.denoiser.network).__name__.replace("UNet", "U-Net").replace("LinearU", "linear U")
    facts = [
        f"Images: {images.height}x{images.width}, {images.channels} channels",
        f"Network: {kind} of {numbers:.1f} million weights",
        f"Predicts: {model.denoiser.prediction}, on the {schedule.name} {levels}",
        f"Weights: {model.weights}, SHA-256 {model.digest}",
    ]
    trained = model.training.get("data")
    return facts if trained is None else [*facts, f"Trained on: {trained}"]
