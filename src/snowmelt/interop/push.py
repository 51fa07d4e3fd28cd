"""A model of ours to Hugging Face, in one commit: as a pipeline of diffusers, or as the folder that it is here."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, Literal

import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.extras import extra_module
from snowmelt.base.files import quoted, read_json, write_json, write_text
from snowmelt.interop.card import Card, card_text
from snowmelt.interop.diffusers.files import CARD, GRID
from snowmelt.interop.diffusers.network import InexpressibleError
from snowmelt.interop.diffusers.write import write_pipeline
from snowmelt.interop.formats import is_foreign
from snowmelt.interop.hub import NAME, PREFIX, told_of
from snowmelt.model.bundle import CHECKPOINT_STATE, CONFIG, FILES, GUIDE, Model, find_model, load_model

Form = Literal["auto", "snowmelt", "diffusers"]
# What the hub puts into an empty repository by itself.
OF_THE_HUB = {".gitattributes"}
# What a token, and a member of an organisation, must be allowed.
WRITING = "repo.write"
READERS = ("read", "viewer")

_USE = """```
snowmelt sample {address} -n 16
```

```python
import snowmelt

model = snowmelt.load("{address}")
images = snowmelt.sample(model, 16)  # {dtype} [16, {channels}, {height}, {width}]
```"""


@dataclass(frozen=True)
class Pushed:
    """What was written.

    address  by which it is named from now on, hf:USER/REPO
    form     snowmelt or diffusers
    commit   its address on the web
    notes    what its user should know, as sentences
    """

    address: str
    form: str
    commit: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Pushing:
    """A push that is allowed and has not begun."""

    hub: ModuleType
    source: Path
    name: str
    form: Form
    private: bool
    is_new: bool

    def send(self, card: Card) -> Pushed:
        """Write the files into a temporary folder and send them in one commit."""
        address = PREFIX + self.name
        model = load_model(self.source, "ema", torch.device("cpu"))
        model = replace(model, training=_without_folders(model.training))
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            form, notes = _write(self.source, model, folder, self.form, card, self.name)
            api = self.hub.HfApi()
            with told_of(self.name, "written"):
                if self.is_new:
                    api.create_repo(self.name, private=self.private or None)
                done = api.upload_folder(
                    repo_id=self.name,
                    folder_path=folder,
                    commit_message="A diffusion model of images, by snowmelt",
                    delete_patterns=None if self.is_new else "*",
                )
        return Pushed(address, form, str(done.commit_url), tuple(notes))


def prepared(
    source: Path, repository: str, form: Form = "auto", private: bool = False, overwrite: bool = False
) -> Pushing:
    """Ask the hub whether USER/REPO may be written, before anything is read or sent; then call `.send`.

    source      a run or model folder of ours
    form        auto: as diffusers where that can express the model, else as ours
    private     of a repository that is made now
    overwrite   put the model in the place of what the repository holds
    Raises SnowmeltError where nobody is logged in, or may not write there, or there is something already.
    """
    match = NAME.fullmatch(repository if repository.startswith(PREFIX) else PREFIX + repository)
    if match is None or match["file"] or match["revision"] or ".." in repository:
        raise SnowmeltError(f"{repository} is no name of a repository.", "Expected USER/REPO.")
    name = match["repository"]
    hub = extra_module("huggingface_hub", "hub", "snowmelt push")
    _require_rights(hub, name)
    there = _files(hub, name)
    if there and not overwrite:
        raise SnowmeltError(
            f"{name} holds {len(there)} files already, {there[0]} among them.",
            "Name another repository, or say --overwrite to put the model in their place.",
        )
    if private and there is not None:
        raise SnowmeltError(
            f"--private would do nothing: {name} is there already, and stays as visible as it is.", "Leave it out."
        )
    if is_foreign(source):
        raise SnowmeltError(
            f"{source} is another library's model.", f"Make it ours first: snowmelt convert {quoted(source)} DEST"
        )
    if (source / CHECKPOINT_STATE).is_file():
        raise SnowmeltError(f"{source} is a checkpoint.", f"Name its run: {quoted(source.resolve().parent.parent)}")
    return Pushing(hub, source, name, form, private, is_new=there is None)


def _write(source: Path, model: Model, folder: Path, form: Form, card: Card, name: str) -> tuple[str, list[str]]:
    """(the form that was chosen, notes): its files in the folder."""
    notes = []
    if form != "snowmelt":
        try:
            pipeline = write_pipeline(model, None, card, name)
        except InexpressibleError as error:
            if form == "diffusers":
                raise SnowmeltError(
                    error.message, "As a model of snowmelt it can be pushed: --format snowmelt"
                ) from error
            notes.append(error.message.rstrip("."))
        else:
            pipeline.save(folder)
            return "diffusers", list(pipeline.notes)
    found = find_model(source)
    for file in (*FILES.values(), GUIDE):
        if (found / file).is_file():
            shutil.copyfile(found / file, folder / file)
    write_json(folder / CONFIG, {**read_json(found / CONFIG), "training": model.training})
    if card.grid is not None:
        (folder / GRID).write_bytes(card.grid)
    images = model.images
    use = _USE.format(
        address=PREFIX + name,
        dtype=images.value_range.dtype,
        channels=images.channels,
        height=images.height,
        width=images.width,
    )
    if images.class_names is not None:
        use += f"\n\nClasses, for `--class NAME`: {', '.join(images.class_names)}."
    write_text(folder / CARD, card_text(model, images, card, "snowmelt", use))
    return "snowmelt", notes


def _without_folders(training: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of its making, without the folders in which that lay: their names are nobody else's business."""

    def shown(value: Any) -> Any:
        private = isinstance(value, str) and (Path(value).is_absolute() or Path(value).parts[:1] in (("..",), ("~",)))
        return Path(value).name if private else value

    return {key: shown(value) for key, value in training.items()}


def _require_rights(hub: ModuleType, name: str) -> None:
    """Raise unless somebody is logged in who may write a model there."""
    login = "Log in with a token that may write: hf auth login"
    if hub.get_token() is None:
        raise SnowmeltError(f"{name} cannot be written: nobody is logged in to Hugging Face.", login)
    errors = extra_module("huggingface_hub.errors", "hub", "snowmelt push")
    with told_of(name, "written"):
        try:
            who = hub.HfApi().whoami()
        except errors.HfHubHTTPError as error:
            if error.response is not None and error.response.status_code in (401, 403):
                raise SnowmeltError(
                    f"{name} cannot be written: Hugging Face does not know the token.", login
                ) from error
            raise
    reason = why_not(who, name)
    if reason is not None:
        raise SnowmeltError(f"{name} cannot be written: {reason}.", login)


def why_not(who: Mapping[str, Any], name: str) -> str | None:
    """Why this user and token may not write the repository, as far as the hub says; None where they may.

    who  what the hub answers to `whoami`
    """
    owner, user = name.split("/")[0], str(who.get("name"))
    if owner.lower() != user.lower():
        member = next((org for org in who.get("orgs") or () if str(org.get("name")).lower() == owner.lower()), None)
        if member is None:
            return f"you are logged in as {user}, who is no member of {owner}"
        if member.get("roleInOrg") in READERS:
            return f"{user} may only read in {owner}"
    token = (who.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        return "the token may only read"
    if token.get("role") == "fineGrained":
        fine = token.get("fineGrained") or {}
        given = list(fine.get("global") or ())
        for scope in fine.get("scoped") or ():
            entity = str((scope.get("entity") or {}).get("name")).lower()
            if entity in (owner.lower(), name.lower()):
                given += scope.get("permissions") or ()
        if WRITING not in given:
            return f"the token is not allowed to write in {owner} ({WRITING})"
    return None


def _files(hub: ModuleType, name: str) -> list[str] | None:
    """What the repository holds; None where there is none."""
    errors = extra_module("huggingface_hub.errors", "hub", "snowmelt push")
    with told_of(name, "written"):
        try:
            siblings = hub.HfApi().model_info(name).siblings or ()
        except errors.RepositoryNotFoundError:
            return None
    return sorted({sibling.rfilename for sibling in siblings} - OF_THE_HUB)
