"""Models by name from Hugging Face: hf:USER/REPO, or one file of it, hf:USER/REPO/PATH."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.extras import extra_module
from snowmelt.interop.diffusers.files import CONFIG, INDEX, OTHER_WEIGHTS, OURS, SCHEDULER, UNET, UNET_AVERAGE, WEIGHTS
from snowmelt.model.bundle import FILES, GUIDE

PREFIX = "hf:"
NAME = re.compile(r"hf:(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>[\w./-]+))?")
# What a model is made of beside its weights; nothing else of a repository is fetched.
SETTINGS = (INDEX, CONFIG, OURS, "scheduler_config.json", SCHEDULER, f"{UNET}/{CONFIG}", f"{UNET_AVERAGE}/{CONFIG}")


def is_named(path: Path) -> bool:
    """Whether this is a name in the hub rather than a path."""
    return path.as_posix().startswith(PREFIX)


def fetched(path: Path) -> Path:
    """The folder or file of a name in the hub, in the hub's own cache; other paths as they are.

    Raises SnowmeltError where there is no such repository, or the hub cannot be reached.
    """
    if not is_named(path):
        return path
    name = path.as_posix()
    match = NAME.fullmatch(name)
    if match is None or ".." in name:
        expected = "Expected hf:USER/REPO, hf:USER/REPO/FILE or hf:USER/REPO@REVISION."
        raise SnowmeltError(f"{name} is no name of a model.", expected)
    hub = extra_module("huggingface_hub", "hub", f"{name} lies in the hub, which")
    repository, revision, file = match["repository"], match["revision"], match["file"]
    with told_of(name):
        if file is not None:
            return Path(hub.hf_hub_download(repository, file, revision=revision))
        found = hub.HfApi().model_info(repository, revision=revision)
        wanted = _wanted({sibling.rfilename for sibling in found.siblings or ()})
        if not wanted:
            raise SnowmeltError(
                f"{name} holds no model that is known by its names.", "Of another kind name the file: hf:USER/REPO/FILE"
            )
        # The revision that was listed: nobody can change it in between.
        return Path(hub.snapshot_download(repository, revision=found.sha, allow_patterns=sorted(wanted)))


def _wanted(files: set[str]) -> set[str]:
    """The files of the model: its settings, and one file of weights for each network."""
    weights = set()
    for folder in ("", f"{UNET}/", f"{UNET_AVERAGE}/"):
        there = [folder + name for name in (WEIGHTS, *OTHER_WEIGHTS) if folder + name in files]
        weights |= set(there[:1])
    own = {*FILES.values(), GUIDE} & files
    return (set(SETTINGS) & files) | weights | own if weights or own else set()


@contextmanager
def told_of(name: str, done: str = "had") -> Iterator[None]:
    """The library's errors in words that say what to do.

    done  to what is named: had, written
    """
    errors = extra_module("huggingface_hub.errors", "hub", name)
    # Which client it uses for HTTP, and so whose errors come through, is the library's to decide.
    unreachable = (errors.HTTPError, OSError)
    try:
        yield
    except errors.HFValidationError as error:
        raise SnowmeltError(f"{name} is no name on Hugging Face: {str(error).strip().splitlines()[0]}") from error
    except errors.LocalEntryNotFoundError as error:
        raise SnowmeltError(f"{name}: Hugging Face cannot be reached.", "Check the network.") from error
    except errors.EntryNotFoundError as error:
        raise SnowmeltError(f"{name}: the repository is there, and no such file in it.") from error
    except errors.HfHubHTTPError as error:
        hint = "If it is private or gated, log in: hf auth login."
        raise SnowmeltError(f"{name} cannot be {done}: {str(error).strip().splitlines()[0]}", hint) from error
    except unreachable as error:
        raise SnowmeltError(f"{name}: Hugging Face cannot be reached ({error}).", "Check the network.") from error
