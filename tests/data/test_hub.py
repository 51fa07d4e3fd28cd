"""Hugging Face data sets: parquet, saved tables and names in the hub, with every byte going through our decoder."""

import sys

import numpy as np
import pytest
from shard_files import pixels, png

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.check import inspect
from snowmelt.data.pipeline import load_data
from snowmelt.data.sources import hub, open_source, settled_name

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()

CLASSES = ["tree", "car", "boat"]  # not in the order of the alphabet


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def table(seeds, **columns):
    """Pictures of random pixels with the class seed % 3, or other columns."""
    images = [{"bytes": png(seed), "path": f"{seed}.png"} for seed in seeds]
    if columns:
        return datasets.Dataset.from_dict({"image": images, **columns}).cast_column("image", datasets.Image())
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    return datasets.Dataset.from_dict({"image": images, "label": [seed % 3 for seed in seeds]}, features=features)


def parquet_folder(root, **splits):
    (root / "data").mkdir(parents=True)
    for split, rows in splits.items():
        rows.to_parquet(str(root / "data" / f"{split}-00000-of-00001.parquet"))
    return root


def saved(root, **splits):
    datasets.DatasetDict(splits).save_to_disk(str(root))
    return root


@pytest.mark.parametrize("write", [parquet_folder, saved])
@pytest.mark.parametrize("held", ["test", "validation"])
def test_pixels_labels_and_the_test_split(tmp_path, write, held):
    data = load_data(write(tmp_path / "set", train=table(range(7)), **{held: table(range(7, 11))}))
    assert np.array_equal(data.training.images[:].numpy(), [pixels(seed).transpose(2, 0, 1) for seed in range(7)])
    assert np.array_equal(data.holdout.images[:].numpy(), [pixels(seed).transpose(2, 0, 1) for seed in range(7, 11)])
    assert data.class_names == tuple(CLASSES)
    assert data.training.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert data.holdout.labels.tolist() == [1, 2, 0, 1]


def test_a_parquet_file_and_a_saved_table_of_one_split(tmp_path):
    table(range(5)).to_parquet(str(tmp_path / "a.parquet"))
    table(range(8)).select([4, 3, 2, 1, 0]).save_to_disk(str(tmp_path / "saved"))
    of_file, of_saved = load_data(tmp_path / "a.parquet", holdout=0), load_data(tmp_path / "saved", holdout=0)
    assert of_file.training.labels.tolist() == [0, 1, 2, 0, 1]
    assert of_saved.training.labels.tolist() == [1, 0, 2, 1, 0]
    assert np.array_equal(of_saved.training.images[:].numpy(), of_file.training.images[:].numpy()[::-1])


def test_labels_may_be_ignored_or_taken_from_another_column(tmp_path):
    rows = table(range(6), label=[3, 20, 100] * 2, kind=list("bab" * 2), colour=[None] * 6)
    root = parquet_folder(tmp_path / "set", train=rows)
    assert load_data(root, labels="none", holdout=0).training.labels is None
    numbers = load_data(root, holdout=0)
    assert numbers.class_names == ("3", "20", "100")
    assert numbers.training.labels.tolist() == [0, 1, 2] * 2
    letters = load_data(root, labels="kind", holdout=0)
    assert letters.class_names == ("a", "b")
    assert letters.training.labels.tolist() == [1, 0, 1] * 2
    with pytest.raises(SnowmeltError, match=r"--labels folder: .*no such column.\n.*auto, none.*image, label, kind"):
        open_source(root, "folder")
    with pytest.raises(SnowmeltError, match=r"column colour of .* gives 6 of 6 rows no label; the first is row 0"):
        open_source(root, "colour")


def test_a_column_called_label_that_holds_none_is_told(tmp_path):
    root = parquet_folder(tmp_path / "set", train=table(range(3), label=[0.5, 1.5, 0.5]))
    source = open_source(root)
    assert source.labels is None
    assert "The column label (float64) is not taken as classes (--labels label takes it)" in source.notes
    assert open_source(root, "label").class_names == ("0.5", "1.5")


def test_a_blank_text_is_no_label(tmp_path):
    root = parquet_folder(tmp_path / "set", train=table(range(3), label=["a", " ", "b"]))
    with pytest.raises(SnowmeltError, match="gives 1 of 3 rows no label; the first is row 1"):
        open_source(root, "auto")


def test_class_numbers_mean_the_same_in_both_splits(tmp_path):
    root = parquet_folder(
        tmp_path / "set", train=table(range(3), label=["c", "a", "c"]), test=table(range(2), label=["c", "b"])
    )
    data = load_data(root)
    assert data.class_names == ("a", "b", "c")
    assert (data.training.labels.tolist(), data.holdout.labels.tolist()) == ([2, 0, 2], [2, 1])


def test_of_several_columns_of_classes_the_other_is_mentioned(tmp_path):
    features = {"fine_label": datasets.ClassLabel(names=list("abc")), "coarse": datasets.ClassLabel(names=list("xy"))}
    rows = table(range(3), fine_label=[0, 1, 2], coarse=[0, 1, 1])
    for column, feature in features.items():
        rows = rows.cast_column(column, feature)
    data = load_data(saved(tmp_path / "set", train=rows), holdout=0)
    assert data.class_names == ("a", "b", "c")
    assert "Classes are the column fine_label (--labels coarse takes that one)" in data.report.notes


def test_hidden_test_labels_are_no_classes(tmp_path):
    hidden = table(range(3)).map(lambda row: {"label": -1})
    data = load_data(saved(tmp_path / "set", train=table(range(40)), test=hidden), holdout=0.1)
    assert len(data.training.images) + len(data.holdout.images) == 40
    assert any("split test has rows without a label" in note for note in data.report.notes)
    with pytest.raises(SnowmeltError, match="gives 3 of 3 rows no label"):
        open_source(saved(tmp_path / "other", train=hidden))


def test_plain_bytes_are_pictures(tmp_path):
    datasets.Dataset.from_dict({"content": [png(0), png(1)]}).to_parquet(str(tmp_path / "a.parquet"))
    data = load_data(tmp_path / "a.parquet", holdout=0)
    assert np.array_equal(data.training.images[1].numpy(), pixels(1).transpose(2, 0, 1))


def test_structs_of_paths_are_pictures_where_the_files_are(tmp_path, picture):
    path = picture(tmp_path / "outside.png")
    files = [{"bytes": None, "path": str(path)}] * 30 + [{"bytes": None, "path": "gone.png"}]
    struct = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    datasets.Dataset.from_dict({"image": files}, features=datasets.Features({"image": struct})).to_parquet(
        str(tmp_path / "a.parquet")
    )
    report = inspect(tmp_path / "a.parquet").report
    assert report.readable == 30
    assert report.unreadable == (("row 30", "the row holds only the path gone.png, which is no file here"),)


def test_a_broken_picture_and_an_empty_row_are_left_out(tmp_path):
    rows = [png(seed) for seed in range(40)]
    rows[3], rows[5] = rows[3][:40], None
    datasets.Dataset.from_dict({"image": rows}).to_parquet(str(tmp_path / "a.parquet"))
    broken = dict(inspect(tmp_path / "a.parquet").report.unreadable)
    assert list(broken) == ["row 3", "row 5"]
    assert broken["row 5"] == "the row holds no picture"


def test_a_table_without_pictures_lists_its_columns(tmp_path):
    datasets.Dataset.from_dict({"text": ["a"], "n": [1]}).to_parquet(str(tmp_path / "a.parquet"))
    with pytest.raises(SnowmeltError, match=r"no column of pictures; its columns are text \(string\), n \(int64\)"):
        open_source(tmp_path / "a.parquet")


def test_splits_without_train_are_listed(tmp_path):
    with pytest.raises(SnowmeltError, match=r"no split 'train'; its splits are left, right"):
        open_source(saved(tmp_path / "set", left=table([0]), right=table([1])))


def test_what_is_no_table_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"nonsense")
    with pytest.raises(SnowmeltError, match=r"a\.parquet cannot be read as a Hugging Face data set: .*arquet"):
        open_source(tmp_path / "a.parquet")


def test_pictures_with_metadata_in_parquet_are_still_a_folder(tmp_path, picture):
    picture(tmp_path / "a.png")
    (tmp_path / "metadata.parquet").write_bytes(b"")
    assert open_source(tmp_path).items.name(0) == "a.png"


def test_without_the_library_it_says_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        SnowmeltError, match=r"a\.parquet.* needs the library datasets.*\n.*pip install 'snowmelt\[data\]'"
    ):
        open_source(tmp_path / "a.parquet")


# Names in the hub; nothing is fetched here.


@pytest.fixture
def asked(monkeypatch):
    """What the hub was asked for; it answers with a small table."""
    calls = []

    def load_dataset(*arguments):
        calls.append(arguments)
        return datasets.DatasetDict(train=table(range(4)))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


@pytest.mark.parametrize(
    ("text", "repository", "config"),
    [
        ("user/name", "user/name", None),
        ("user/name-1.5:small", "user/name-1.5", "small"),
        ("hf:mnist", "mnist", None),
        ("hf:user/name:a", "user/name", "a"),
    ],
)
def test_a_name_that_is_no_path_is_asked_of_the_hub(tmp_path, monkeypatch, asked, text, repository, config):
    monkeypatch.chdir(tmp_path)
    source = open_source(text)
    assert asked == [(repository, config)]
    assert (source.name, len(source), source.class_names) == (text, 4, tuple(CLASSES))
    assert settled_name(text) == text


def test_a_path_that_exists_wins_over_the_hub(tmp_path, monkeypatch, asked, picture):
    picture(tmp_path / "user" / "name" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert len(open_source("user/name")) == 1
    assert settled_name("user/name") == str(tmp_path / "user" / "name")
    assert asked == []


@pytest.mark.parametrize("text", ["photos", "./user/name", "../user/name", "/user/name", "~/name", "a/b/c", "a/b.zip"])
def test_a_path_is_never_asked_of_the_hub(tmp_path, monkeypatch, asked, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SnowmeltError, match="neither a built-in name nor a path that exists"):
        open_source(text)
    assert asked == []


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (
            datasets.exceptions.DatasetNotFoundError("Dataset 'x' doesn't exist"),
            r"no such path.*doesn't exist.*\n.*log in",
        ),
        (ConnectionError("Couldn't reach it"), r"'flowres/train' is here, and .*Couldn't reach it.\n.*network"),
        (
            ValueError("Config name is missing"),
            r"flowres/train cannot be .*Config name is missing.\n.*flowres/train:CONFIG",
        ),
    ],
)
def test_what_the_hub_refuses_is_told_with_the_path_that_may_have_been_meant(tmp_path, monkeypatch, error, match):
    def refuse(*arguments):
        raise error

    (tmp_path / "flowers").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(SnowmeltError, match=match) as raised:
        open_source("flowres/train")
    assert "Did you mean" in str(raised.value)
    assert f"{tmp_path}/flowers?" in str(raised.value)


def test_a_million_pictures_of_a_class_are_not_searched_for_tables(tmp_path, monkeypatch, picture):
    for number in range(5):
        picture(tmp_path / "class" / f"{number}.png")
    monkeypatch.setattr(hub, "LOOKED_AT", 2)
    assert not hub._is_local(tmp_path)
    assert hub._is_local(parquet_folder(tmp_path / "set", train=table([0])))


def test_a_path_with_a_mistake_is_not_asked_for_in_the_hub(tmp_path, monkeypatch):
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SnowmeltError, match=r"No data set 'photos/cat'.*\n.*Did you mean .*photos/cats"):
        open_source("photos/cat")
