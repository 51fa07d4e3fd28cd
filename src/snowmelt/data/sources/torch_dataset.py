"""Any map-style Dataset of torch (torchvision's, one's own): its items are pictures, or pictures with a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.arrays import Rows
from snowmelt.data.decode import header_of, pixels_of
from snowmelt.data.items import MOST_CHANNELS, Header, Pixels, Source, Target, UnreadableError, digest_of
from snowmelt.data.planes import fitted_planes
from snowmelt.data.sources.labels import Labels, array_labels
from snowmelt.data.sources.table import TRAIN, source_of_tables

OBJECT = "dataset"  # the name of what was given as an object, if it has no other
TARGETS = ("targets", "labels")  # what torchvision's data sets call the list of all labels
ASKED = 256  # items that are asked whether they agree with it


def source_of(
    dataset: Any, name: str = OBJECT, class_names: Sequence[str] | None = None, labels: str = "auto"
) -> Source:
    """The source of a map-style Dataset, or of a Dataset or DatasetDict of the library `datasets`.

    dataset      len(dataset), and dataset[i]: a picture, or (picture, label, ...). A picture is a PIL image, a tensor
                 [C, H, W] or [H, W], or an array [H, W, C] or [H, W]; uint8, uint16 or floats; 1 to 64 channels.
                 A label is an integer or a text
    class_names  names of the labels 0, 1, ...; by default dataset.classes, if it is there
    labels       auto or none; a column, too, for a table of `datasets`
    Raises SnowmeltError where it is not such a data set. Labels that are neither integers nor texts are not used.
    """
    tables = dataset if isinstance(dataset, Mapping) else {TRAIN: dataset}
    if tables and all(map(_is_table, tables.values())):
        return source_of_tables(name, tables, labels)
    if not (isinstance(dataset, Sized) and hasattr(dataset, "__getitem__")):
        raise SnowmeltError(
            f"{name} is a {type(dataset).__name__} without len() or without [i]: a map-style Dataset is needed.",
            "Collect an iterable one first: list(dataset).",
        )
    if not len(dataset):
        raise SnowmeltError(f"{name} holds no items.")
    items = DatasetItems(dataset)
    named = getattr(dataset, "classes", None) if class_names is None else class_names
    return Source(name, items, *_labels(items, name, named, labels))


def _is_table(value: Any) -> bool:
    """Whether it is a Dataset of the library `datasets`, which others may call a package of their own."""
    named = type(value).__module__.partition(".")[0] == "datasets"
    return named and all(hasattr(value, each) for each in ("features", "column_names", "__len__"))


class DatasetItems:
    """The pictures of a Dataset. Its items are asked for one at a time: few data sets can serve several threads."""

    encoded = False  # what comes out of it may be another each time
    threads: int | None = None

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        """See Items.name."""
        return f"item {index}"

    def header(self, index: int) -> Header:
        """See Items.header: to know it, the item has to be made."""
        image = self._picture(index)
        return header_of(image) if isinstance(image, Image.Image) else Rows(image[None]).header(0)

    def read(self, index: int, target: Target) -> Pixels:
        """See Items.read."""
        image = self._picture(index)
        if not isinstance(image, Image.Image):
            return fitted_planes(image, target)
        try:
            image.load()  # it may be a file that was only opened
        except Exception as error:  # a damaged one can raise anything
            raise UnreadableError(f"{type(error).__name__}: {error}") from error
        return pixels_of(image, target)

    def digest(self, index: int, head: int | None = None) -> bytes:
        """See Items.digest: of the picture's values."""
        return digest_of(np.asarray(self._picture(index)).tobytes()[:head])

    def stamp(self) -> bytes | None:
        """See Items.stamp: unknown."""
        return None

    def label(self, index: int) -> int | str | None:
        """The label of an item, None where there is none or it is of another kind; raises UnreadableError."""
        item = self._item(index)
        value = item[1] if isinstance(item, tuple | list) and len(item) > 1 else None
        if isinstance(value, torch.Tensor | np.ndarray | np.generic):
            value = value.item() if value.ndim == 0 else None
        return value if isinstance(value, int | str) else None

    def _item(self, index: int) -> Any:
        try:
            with self._lock:
                return self.dataset[index]
        except Exception as error:  # it is the user's code
            raise UnreadableError(f"{type(error).__name__}: {error}") from error

    def _picture(self, index: int) -> Image.Image | Pixels:
        """The item's picture, as a PIL image or as [C, H, W] of uint8, uint16 or float32."""
        item = self._item(index)
        image = item[0] if isinstance(item, tuple | list) and len(item) else item
        if isinstance(image, Image.Image):
            return image
        if isinstance(image, torch.Tensor):
            return _planes(image.detach().cpu().numpy(), 0)
        if isinstance(image, np.ndarray):
            return _planes(image, -1)
        raise UnreadableError(f"a {type(image).__name__} is no picture; expected a PIL image, a tensor or an array")


def _planes(array: Pixels, channels: int) -> Pixels:
    """[C, H, W] of an array whose axis `channels` counts them, or that has no such axis."""
    planes = array[None] if array.ndim == 2 else np.moveaxis(array, channels, 0) if array.ndim == 3 else array
    if planes.dtype.kind == "f":
        planes = planes.astype(np.float32, copy=False)
    # Of an array [3, H, W] each column would be a channel, if so many were believed at once.
    turned = planes.ndim == 3 and len(planes) > 4 >= array.shape[0] and channels == -1
    if planes.ndim != 3 or turned or not 1 <= len(planes) <= MOST_CHANNELS or 0 in planes.shape:
        wanted = "[C, H, W] or [H, W]" if channels == 0 else "[H, W, C] or [H, W]"
        raise UnreadableError(f"its shape is {array.shape}; expected {wanted} of 1 to {MOST_CHANNELS} channels")
    if planes.dtype.name not in ("uint8", "uint16", "float32"):
        raise UnreadableError(f"its values are {planes.dtype}; expected uint8, uint16 or floats")
    return planes


def _labels(items: DatasetItems, name: str, class_names: Sequence[str] | None, way: str) -> Labels:
    try:
        if way == "none" or items.label(0) is None:
            return array_labels(None, len(items), way, name)
        values = _listed_labels(items) or [items.label(index) for index in range(len(items))]
    except UnreadableError as error:
        raise SnowmeltError(
            f"The labels of {name} cannot be read: {error}.", "Mend the data set, or train without: labels='none'."
        ) from error
    if None in values:
        raise SnowmeltError(
            f"{values.count(None):,} of {len(values):,} items of {name} have no label (an integer or a text); the "
            f"first is item {values.index(None)}.",
            "Label all of them, or train without classes: labels='none'.",
        )
    whole = all(isinstance(value, int) for value in values)
    if class_names is None or not whole:
        return array_labels(np.array([str(value) for value in values]), len(values), way, name)
    if not 0 <= min(values) <= max(values) < len(class_names):
        raise SnowmeltError(
            f"The labels of {name} are {min(values)} to {max(values)}, and there are {len(class_names)} class names.",
            "Labels count from 0, and each needs a name.",
        )
    return array_labels(np.array(values), len(values), way, name, class_names)


def _listed_labels(items: DatasetItems) -> list[Any] | None:
    """All labels from a list that the data set keeps, if items all over it agree with what they say themselves, and
    nothing is made of them on the way there.
    """
    together = getattr(items.dataset, "transforms", None)  # torchvision's, which may hold no more than one of images
    if getattr(items.dataset, "target_transform", None) or getattr(together, "target_transform", together):
        return None
    for attribute in TARGETS:
        kept = getattr(items.dataset, attribute, None)
        if isinstance(kept, torch.Tensor | np.ndarray):
            kept = kept.tolist()
        if not isinstance(kept, list) or len(kept) != len(items):
            continue
        asked = np.linspace(0, len(kept) - 1, min(ASKED, len(kept))).astype(int).tolist()
        if all(isinstance(value, int | str) for value in kept) and all(
            kept[index] == items.label(index) for index in asked
        ):
            return kept
    return None
