"""WebDataset shards: samples are members that share a name, wherever in many tar files they lie."""

import json
import tarfile

import numpy as np
import pytest
from shard_files import pixels, png, shard

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.check import inspect
from snowmelt.data.pipeline import load_data
from snowmelt.data.sources import open_source, settled_name, shards


def text_label(seed):
    return ("cls", b"%d\n" % (seed % 3))


def json_label(seed):
    return ("json", json.dumps({"caption": "a thing", "label": "cba"[seed % 3]}).encode())


def no_label(seed):
    return ("txt", b"a caption")


def three_shards(root, label):
    """Shards of 4, 0 and 3 samples."""
    for number, seeds in enumerate((range(4), (), range(4, 7))):
        members = []
        for seed in seeds:
            extension, content = label(seed)
            members += [(f"{seed:06}.png", png(seed)), (f"{seed:06}.{extension}", content)]
        shard(root / f"shard-{number:03}.tar", members)
    return root


WAYS = pytest.mark.parametrize("pattern", ["", "shard-{000..002}.tar", "shard-*.tar", "shard-00?.tar"])


@WAYS
def test_samples_of_all_shards_in_order(tmp_path, pattern):
    data = load_data(three_shards(tmp_path / "s", text_label) / pattern, holdout=0)
    assert np.array_equal(data.training.images[:].numpy(), [pixels(seed).transpose(2, 0, 1) for seed in range(7)])
    assert data.training.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert data.class_names == ("0", "1", "2")
    assert data.report.skipped == {}


def test_what_was_kept_of_a_tar_file_is_not_taken_for_its_samples(tmp_path):
    """Its pictures are sorted, samples come as they lie."""
    members = [(f"{seed}.{kind}", what) for seed in (2, 10, 1) for kind, what in (("png", png(seed)), text_label(seed))]
    path = shard(tmp_path / "s" / "a.tar", members)
    assert load_data(path, holdout=0).class_names is None
    data = load_data(tmp_path / "s", holdout=0)
    assert data.training.labels.tolist() == [1, 0, 0]
    expected = [pixels(seed).transpose(2, 0, 1) for seed in (2, 10, 1)]
    assert np.array_equal(data.training.images[:].numpy(), expected)


def test_links_in_a_shard_are_counted(tmp_path):
    path = shard(tmp_path / "s" / "a.tar", [("0.png", png(0))])
    with tarfile.open(path, "a") as made:
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "0.png"
        made.addfile(link)
    assert load_data(tmp_path / "s", holdout=0).report.skipped == {"link": 1}


def test_names_of_classes_that_are_no_text_are_told(tmp_path):
    root = three_shards(tmp_path / "s", text_label)
    (root / "classes.txt").write_bytes(b"caf\xe9\nb\nc\n")
    with pytest.raises(SnowmeltError, match="is not UTF-8 text"):
        load_data(root, holdout=0)


def test_some_shards_of_many_with_two_ranges(tmp_path):
    for part in range(2):
        for number in (9, 10):
            shard(tmp_path / f"p{part}-{number:02}.tar", [(f"{10 * part + number}.png", png(10 * part + number))])
    source = open_source(tmp_path / "p{0..1}-{09..10}.tar")
    names = [source.items.name(index) for index in range(len(source))]
    assert names == ["p0-09.tar/9.png", "p0-10.tar/10.png", "p1-09.tar/19.png", "p1-10.tar/20.png"]


def test_labels_in_json_and_labels_ignored(tmp_path):
    root = three_shards(tmp_path / "s", json_label)
    data = load_data(root, holdout=0)
    assert data.class_names == ("a", "b", "c")
    assert data.training.labels.tolist() == [2, 1, 0, 2, 1, 0, 2]
    data = load_data(root, holdout=0, labels="none")
    assert data.training.labels is None
    assert data.report.skipped == {".json": 7}


def test_class_names_beside_the_shards(tmp_path):
    root = three_shards(tmp_path / "s", text_label)
    (root / "classes.txt").write_text("tree\ncar\nboat\n")
    data = load_data(root, holdout=0)
    assert data.class_names == ("tree", "car", "boat")
    assert data.training.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    (root / "classes.txt").write_text("tree\ncar\n")
    with pytest.raises(SnowmeltError, match=r"has the label 2, but .*classes\.txt names 2 classes"):
        load_data(root / "shard-*.tar")


def test_captions_are_no_labels(tmp_path):
    data = load_data(three_shards(tmp_path / "s", no_label), holdout=0)
    assert data.training.labels is None
    assert data.report.skipped == {".txt": 7}


def test_one_sample_without_a_label_is_named(tmp_path):
    root = three_shards(tmp_path / "s", text_label)
    shard(root / "shard-003.tar", [("x/7.jpg", png(7)), ("x/8.jpg", png(8)), ("x/8.cls", b"1")])
    with pytest.raises(SnowmeltError, match=r"1 of 9 samples of .* no label; the first is shard-003\.tar/x/7\.jpg\."):
        open_source(root)
    assert len(open_source(root, "none")) == 9


def test_of_several_pictures_the_plain_one_is_the_sample(tmp_path):
    members = [("0.depth.png", png(1)), ("0.png", png(0)), ("0.txt", b""), ("1.png", png(2)), ("1.mask.png", png(3))]
    data = load_data(shard(tmp_path / "s" / "0.tar", members).parent, holdout=0)
    assert np.array_equal(data.training.images[:].numpy(), [pixels(seed).transpose(2, 0, 1) for seed in (0, 2)])
    assert any(note.startswith("2 further pictures") for note in data.report.notes)


def test_the_same_names_in_two_shards_are_two_samples(tmp_path):
    for number in range(2):
        shard(tmp_path / f"{number}.tar", [("0.png", png(number)), ("__key__", b""), (".hidden.png", png(9))])
    assert len(open_source(tmp_path)) == 2


def test_splits_among_the_shards_are_pointed_out(tmp_path):
    for split in ("train", "val"):
        shard(tmp_path / f"{split}-0.tar", [("0.png", png(0))])
    assert any("train, val look like splits" in note for note in open_source(tmp_path).notes)
    assert open_source(tmp_path / "train-*.tar").notes == ()


def test_a_folder_with_anything_else_is_a_folder(tmp_path, picture):
    three_shards(tmp_path, text_label)
    picture(tmp_path / "a.png")
    assert open_source(tmp_path).items.name(0) == "a.png"


@pytest.mark.parametrize(
    ("pattern", "match"),
    [
        ("shard-{000..004}.tar", r"2 of the 5 shards .* are missing, first .*shard-003\.tar"),
        ("shard-{3..2}.tar", "the first number in the braces is above the last"),
        ("other-*.tar", r"No file matches .*other-\*\.tar"),
    ],
)
def test_missing_shards_are_named(tmp_path, pattern, match):
    with pytest.raises(SnowmeltError, match=match):
        open_source(three_shards(tmp_path, text_label) / pattern)


def test_a_broken_shard_is_named(tmp_path):
    root = three_shards(tmp_path, text_label)
    whole = (root / "shard-002.tar").read_bytes()
    (root / "shard-002.tar").write_bytes(whole[:700])
    with pytest.raises(SnowmeltError, match=r"shard-002\.tar cannot be read as a tar file"):
        open_source(root)


@pytest.mark.parametrize(("name", "content"), [("0.json", b"{"), ("0.cls", b"\xff")])
def test_a_broken_label_is_named(tmp_path, name, content):
    shard(tmp_path / "0.tar", [("0.png", png(0)), (name, content)])
    with pytest.raises(SnowmeltError, match=rf"0\.tar: {name} cannot be read"):
        open_source(tmp_path)
    assert len(open_source(tmp_path, "none")) == 1


def test_a_broken_picture_is_named_by_its_shard(tmp_path):
    shard(tmp_path / "0.tar", [(f"{seed:02}.png", png(seed)[: 30 if seed == 7 else None]) for seed in range(40)])
    ((name, _),) = inspect(tmp_path).report.unreadable
    assert name == "0.tar/07.png"


def test_a_shard_that_is_gone_since_leaves_unreadable_pictures(tmp_path):
    root = three_shards(tmp_path, no_label)
    source = open_source(root)
    (root / "shard-002.tar").unlink()
    assert source.items.name(6).startswith("shard-002.tar, byte")
    with pytest.raises(Exception, match="No such file"):
        source.items.header(6)


def test_shards_without_pictures_say_what_they_hold(tmp_path):
    shard(tmp_path / "0.tar", [("0.txt", b""), ("1.txt", b"")])
    with pytest.raises(SnowmeltError, match=r"No images in .*\n.*found 2 \.txt"):
        open_source(tmp_path)


def test_a_pattern_is_found_from_any_folder(tmp_path, monkeypatch):
    three_shards(tmp_path, text_label)
    monkeypatch.chdir(tmp_path)
    assert settled_name("shard-{000..002}.tar") == str(tmp_path / "shard-{000..002}.tar")
    assert len(open_source("shard-*.tar")) == 7


def test_the_second_start_reads_no_header(tmp_path, monkeypatch):
    root = three_shards(tmp_path / "s", json_label)
    first, read = load_data(root, holdout=0), []
    original = shards.opened_tar
    monkeypatch.setattr(shards, "opened_tar", lambda *asked, **how: (read.append(1), original(*asked, **how))[1])
    second = load_data(root, holdout=0)
    assert read == []
    assert (second.fingerprint, second.report) == (first.fingerprint, first.report)
    assert second.class_names == ("a", "b", "c")
    assert second.training.labels.equal(first.training.labels)
    assert load_data(root, holdout=0, labels="none").training.labels is None  # which was not asked for before
    assert len(read) == 3
    shard(root / "shard-001.tar", [("new.png", png(7)), ("new.cls", b"a")])
    assert load_data(root, holdout=0).training.labels.tolist() == [2, 1, 0, 2, 0, 1, 0, 2]
