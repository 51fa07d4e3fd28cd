"""`snowmelt push`: a model to Hugging Face."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def push(
    run: Path,
    repository: str,
    *,
    format_: Annotated[Literal["auto", "snowmelt", "diffusers"], Parameter(name="--format")] = "auto",
    private: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Put a model on Hugging Face, with a card of its samples and measurements. Asks first whether you may.

    Parameters
    ----------
    run
        A run such as runs/NAME, or a model folder.
    repository
        USER/REPO: your own name or that of an organisation that you may write in. It is made if it is not there.
    format_
        diffusers: a folder for DDPMPipeline.from_pretrained; snowmelt: the model folder as it is; auto: the first where
        diffusers can express the model, else the second.
    private
        Make the repository visible to its owner alone. Without it everybody can see it.
    overwrite
        Put the model in the place of whatever the repository holds. Its history keeps that.
    """
    from snowmelt.interop.push import prepared
    from snowmelt.report.card import card_of

    pushed = prepared(run, repository, format_, private, overwrite).send(card_of(run))
    for note in pushed.notes:
        print(f"Note: {note}.")
    what = "as a pipeline of diffusers" if pushed.form == "diffusers" else "as a model folder of snowmelt"
    print(f"Written: {pushed.address}, {what}\n  {pushed.commit}")
    print(f"Next: snowmelt sample {pushed.address} -n 16")
