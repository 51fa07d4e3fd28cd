"""Datasets of torch, as users and torchvision write them."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset, TensorDataset

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.items import Target, UnreadableError
from snowmelt.data.sources.torch_dataset import source_of


def planes(seed, channels=3, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, 256, (channels, 6, 9)).astype(dtype)


class Made:
    """A map-style data set of a function of the index."""

    def __init__(self, make, count=4, **attributes):
        self.make, self.count = make, count
        self.__dict__.update(attributes)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.make(index)


def read(source, index, dtype="uint8", channels=3):
    return source.items.read(index, Target(dtype, channels, 6, 9, "crop"))


@pytest.mark.parametrize(
    ("make", "dtype", "channels"),
    [
        (lambda p: Image.fromarray(p.transpose(1, 2, 0)), "uint8", 3),
        (lambda p: Image.fromarray(p[0]), "uint8", 1),
        (lambda p: torch.from_numpy(p), "uint8", 3),
        (lambda p: torch.from_numpy(p[0]), "uint8", 1),
        (lambda p: torch.from_numpy(p) / 255, "float32", 3),
        (lambda p: torch.from_numpy(p).double() / 255, "float32", 3),
        (lambda p: p.transpose(1, 2, 0), "uint8", 3),
        (lambda p: p[0], "uint8", 1),
        (lambda p: p[:2].transpose(1, 2, 0), "uint8", 2),
        (lambda p: p.transpose(1, 2, 0).astype(np.uint16) * 257, "uint16", 3),
    ],
)
@pytest.mark.parametrize("wrap", [lambda x, i: x, lambda x, i: (x,), lambda x, i: (x, i), lambda x, i: [x, i, "more"]])
def test_pictures_of_every_kind(make, dtype, channels, wrap):
    source = source_of(Made(lambda i: wrap(make(planes(i)), i)))
    header = source.items.header(2)
    assert (header.height, header.width, header.channels, header.dtype) == (6, 9, channels, dtype)
    scale = {"uint8": 1, "float32": 1 / 255, "uint16": 257}[dtype]
    np.testing.assert_allclose(read(source, 2, dtype, channels), planes(2)[:channels] * float(scale), rtol=1e-6)


@pytest.mark.parametrize("label", [int, np.int64, torch.tensor, lambda i: np.array(i), lambda i: "dcba"[i]])
def test_labels_of_every_kind(label):
    source = source_of(Made(lambda i: (planes(i), label(i))))
    if source.class_names == ("a", "b", "c", "d"):
        assert source.labels.tolist() == [3, 2, 1, 0]
    else:
        assert (source.class_names, source.labels.tolist()) == (("0", "1", "2", "3"), [0, 1, 2, 3])
    assert source_of(Made(lambda i: (planes(i), label(i))), labels="none").labels is None


def test_class_names_are_the_data_set_s_or_the_user_s():
    made = Made(lambda i: (planes(i), [2, 0, 2, 0][i]), classes=["tree", "car", "boat"])
    assert (source_of(made).class_names, source_of(made).labels.tolist()) == (("tree", "car", "boat"), [2, 0, 2, 0])
    assert source_of(made, class_names=["x", "y", "z"]).class_names == ("x", "y", "z")
    with pytest.raises(SnowmeltError, match="The labels of mine are 0 to 2, and there are 2 class names"):
        source_of(made, "mine", ["x", "y"])


@pytest.mark.parametrize("kept", [list, torch.tensor, np.array])
@pytest.mark.parametrize("attribute", ["targets", "labels"])
def test_labels_kept_in_a_list_are_not_asked_one_by_one(kept, attribute):
    asked = []

    def make(index):
        asked.append(index)
        return planes(index), index % 3

    source = source_of(Made(make, 4000, **{attribute: kept([index % 3 for index in range(4000)])}))
    assert source.labels.tolist() == [index % 3 for index in range(4000)]
    assert {0, 3999} < set(asked)
    assert len(set(asked)) <= 256


def test_a_list_is_not_believed_where_items_in_its_midst_say_otherwise():
    source = source_of(
        Made(lambda i: (planes(i), 1 if i % 10 == 7 else i % 10), 40, targets=[i % 10 for i in range(40)])
    )
    assert source.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 1, 7, 8] * 4  # classes are counted without the seventh


def test_a_list_that_disagrees_with_the_items_is_not_believed():
    """As where target_transform makes other labels of them."""
    source = source_of(Made(lambda i: (planes(i), 3 - i), targets=[0, 1, 2, 3]))
    assert source.labels.tolist() == [3, 2, 1, 0]


def test_a_list_is_not_believed_where_something_is_made_of_its_labels():
    """Though its ends agree with the items."""
    made = Made(lambda i: (planes(i), (0, 7, 2, 3)[i]), targets=[0, 1, 2, 3], target_transform=lambda y: y)
    assert source_of(made).labels.tolist() == [0, 3, 1, 2]


def test_values_that_are_no_classes_are_not_used():
    for value in (0.5, torch.ones(3), None, {"a": 1}):
        assert source_of(Made(lambda i, value=value: (planes(i), value))).labels is None
    with pytest.raises(SnowmeltError, match=r"1 of 4 items of dataset have no label .* the first is item 2"):
        source_of(Made(lambda i: (planes(i), None if i == 2 else 1)))


def test_tensors_of_torch_s_own_data_set():
    pixels = torch.from_numpy(np.stack([planes(seed) for seed in range(5)]))
    source = source_of(TensorDataset(pixels, torch.tensor([1, 0, 1, 0, 1])))
    assert source.labels.tolist() == [1, 0, 1, 0, 1]
    assert np.array_equal(read(source, 4), planes(4))


def test_a_data_set_is_asked_by_one_thread_at_a_time():
    inside = []

    def make(index):
        inside.append(index)
        together.append(len(inside))
        threading.Event().wait(0.01)
        inside.remove(index)
        return torch.from_numpy(planes(index))

    together = []
    source = source_of(Made(make, 8))
    threads = [threading.Thread(target=read, args=(source, index)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(together) == 1


@pytest.mark.parametrize(
    ("picture", "match"),
    [
        ("text", "a str is no picture; expected a PIL image"),
        (torch.zeros(80, 6, 9, dtype=torch.uint8), r"its shape is \(80, 6, 9\); expected \[C, H, W\]"),
        (np.zeros((3, 6, 9), np.uint8), r"its shape is \(3, 6, 9\); expected \[H, W, C\]"),
        (np.zeros((6, 9), np.int64), "its values are int64"),
        (Image.new("I", (9, 6)), "32-bit integers"),
    ],
)
def test_other_items_are_unreadable(picture, match):
    source = source_of(Made(lambda i: picture))
    for call in (source.items.header, lambda index: read(source, index)):
        with pytest.raises(UnreadableError, match=match):
            call(0)


def test_what_the_user_s_code_raises_is_told_by_item(tmp_path, picture):
    def make(index):
        return planes(index) if index else 1 / 0

    source = source_of(Made(make), labels="none")
    with pytest.raises(UnreadableError, match="ZeroDivisionError: division by zero"):
        source.items.header(0)
    assert source.items.name(0) == "item 0"
    with pytest.raises(SnowmeltError, match="labels of dataset cannot be read: ZeroDivisionError"):
        source_of(Made(make))
    path = picture(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UnreadableError, match="truncated"):
        read(source_of(Made(lambda i: Image.open(path))), 0)


class Stream(IterableDataset):
    def __iter__(self):
        yield planes(0)


def test_what_is_no_data_set_is_refused():
    with pytest.raises(SnowmeltError, match=r"mine is a Stream without len\(\).*\n.*list\(dataset\)"):
        source_of(Stream(), "mine")
    with pytest.raises(SnowmeltError, match="SimpleNamespace without"):
        source_of(SimpleNamespace())
    with pytest.raises(SnowmeltError, match="holds no items"):
        source_of([])


def test_a_table_of_hugging_face_s_library_is_one_too():
    datasets = pytest.importorskip("datasets")
    images = [Image.fromarray(planes(seed).transpose(1, 2, 0)) for seed in range(4)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["b", "a"])})
    rows = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 0, 1]}, features=features)
    source = source_of(datasets.DatasetDict(train=rows, test=rows.select([3])))
    assert (source.class_names, source.labels.tolist(), len(source.test)) == (("b", "a"), [0, 1, 0, 1], 1)
    assert np.array_equal(read(source_of(rows), 2), planes(2))


def test_a_package_of_one_s_own_may_be_called_datasets_too(monkeypatch):
    own = type("Own", (Made,), {"__module__": "datasets.celeba"})
    assert len(source_of(own(lambda i: (planes(i), i % 2), 6))) == 6
    streaming = type(
        "IterableDataset", (), {"__module__": "datasets.iterable_dataset", "features": {}, "column_names": []}
    )
    with pytest.raises(SnowmeltError, match="a map-style Dataset is needed"):
        source_of(streaming())
