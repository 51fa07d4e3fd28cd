"""Zip and tar files: read where they lie, with the labels they carry, and nothing in them can do harm."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.check import inspect
from snowmelt.data.pipeline import load_data
from snowmelt.data.sources import archive


def png(seed, size=(8, 8)):
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def contents(prefix=""):
    """Two classes of five pictures, a text and a hidden file."""
    files = {
        f"{prefix}{name}/{number}.PNG": png(10 * c + number)
        for c, name in enumerate(("cat", "dog"))
        for number in range(5)
    }
    return {
        **files,
        f"{prefix}read me.txt": b"text",
        f"{prefix}__MACOSX/cat/._0.png": b"x",
        f"{prefix}cat/.hidden.png": b"x",
    }


def write(path, files):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
            for name, content in files.items():
                made.writestr(name, content)
        return path
    mode = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}[path.suffix]
    with tarfile.open(path, mode) as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return path


KINDS = pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "A.TAR.XZ".lower()])


@KINDS
@pytest.mark.parametrize("prefix", ["", "pets/"])
def test_an_archive_is_the_folder_that_it_was_made_of(tmp_path, name, prefix):
    folder = tmp_path / "folder"
    for file, content in contents().items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    data = load_data(write(tmp_path / name, contents(prefix)), holdout=0)
    same = load_data(folder, holdout=0)
    assert data.fingerprint == same.fingerprint
    assert data.class_names == ("cat", "dog")
    assert data.report.skipped == {".txt": 1}


@KINDS
def test_labels_of_stylegan_s_dataset_json(tmp_path, name):
    files = {f"00000/img{i:08}.png": png(i) for i in range(6)}
    table = {"labels": [[file, i % 3] for i, file in enumerate(files)]}
    data = load_data(write(tmp_path / name, {**files, "dataset.json": json.dumps(table).encode()}), holdout=0)
    assert data.class_names == ("0", "1", "2")
    assert data.training.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert load_data(tmp_path / name, holdout=0, labels="none").training.labels is None


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_labels_of_hugging_face_s_metadata_in_a_folder(tmp_path, kind):
    names = ["b.png", "a.png", "sub/c.png"]
    (tmp_path / "sub").mkdir()
    for i, file in enumerate(names):
        (tmp_path / file).write_bytes(png(i))
    rows = [{"file_name": file, "label": label} for file, label in zip(names, ("tree", "car", "tree"), strict=True)]
    text = (
        "\n".join(json.dumps(row) for row in rows)
        if kind == "jsonl"
        else "file_name,label\n" + "\n".join(f"{row['file_name']},{row['label']}" for row in rows)
    )
    (tmp_path / f"metadata.{kind}").write_text(text)
    data = load_data(tmp_path, holdout=0)
    assert data.class_names == ("car", "tree")
    assert data.training.labels.tolist() == [0, 1, 1]  # a.png, b.png, sub/c.png


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        ("dataset.json", "{", "dataset.json: not valid JSON"),
        ("dataset.json", '{"labels": [[1]]}', r"expected {\"labels\""),
        ("dataset.json", '{"labels": [["other.png", 1]]}', "gives 1 of 1 files no label; the first is a.png"),
        ("metadata.jsonl", "nonsense", "metadata.jsonl, line 1: not valid JSON"),
        ("metadata.jsonl", "[1]", "expected a JSON object"),
        ("metadata.csv", "file_name,label\nother.png,1", "no label; the first is a.png"),
        ("metadata.csv", "file_name,label\na.png, ", "gives 1 of 1 files no label; the first is a.png"),
        ("metadata.csv", "name,label\na.png,1", "metadata.csv has no column file_name"),
        ("metadata.csv", 'file_name,label\na.png,"' + 200_000 * "x", "metadata.csv, line 1: not valid CSV"),
        ("metadata.csv", "file_name,label,label\na.png,1,2", "two columns are called label"),
    ],
)
def test_a_broken_label_file_is_named(tmp_path, file, text, match):
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / file).write_text(text)
    with pytest.raises(SnowmeltError, match=match):
        load_data(tmp_path, holdout=0)
    assert load_data(tmp_path, holdout=0, labels="none").training.labels is None


def test_blanks_around_a_label_are_none_of_it(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    (tmp_path / "metadata.csv").write_text("file_name, label\n0.png, car\n1.png,car ")
    assert load_data(tmp_path, holdout=0).class_names == ("car",)


@pytest.mark.parametrize(
    "text",
    ['{"labels": null}', '{"labels": [["a.png", 0.5]]}', '{"labels": [["a.png", 4000000000]]}', '{"other": 1}'],
)
def test_labels_that_are_no_classes_are_left_with_a_note(tmp_path, text):
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / "dataset.json").write_text(text)
    data = load_data(tmp_path, holdout=0)
    assert data.training.labels is None
    assert any("dataset.json holds" in note for note in data.report.notes)


def test_the_folders_of_a_stylegan_archive_are_no_classes(tmp_path):
    files = {f"{number // 3:05}/img{number:08}.png": png(number) for number in range(6)}
    data = load_data(write(tmp_path / "a.zip", {**files, "dataset.json": b'{"labels": null}'}), holdout=0)
    assert data.class_names is None


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("dataset.json", '{"labels": [["a.png", 0], ["a.png", 1]]}'),
        ("metadata.csv", "file_name,label\na.png,cat\na.png,dog"),
    ],
)
def test_two_labels_of_one_picture_are_refused(tmp_path, file, text):
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / file).write_text(text)
    with pytest.raises(SnowmeltError, match=r"gives a\.png two labels"):
        load_data(tmp_path, holdout=0)


@pytest.mark.parametrize("prefix", ["./", "./pets/"])
@pytest.mark.parametrize("name", ["a.tar", "a.tgz"])
def test_a_tar_file_of_the_folder_it_was_made_in_has_its_classes(tmp_path, name, prefix):
    data = load_data(write(tmp_path / name, contents(prefix)), holdout=0)
    assert data.class_names == ("cat", "dog")
    assert data.training.labels.tolist() == [0] * 5 + [1] * 5


def test_metadata_without_labels_leaves_the_folders_as_classes(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(png(1))
    (tmp_path / "metadata.csv").write_text("file_name,text\ncat/0.png,hello")
    data = load_data(tmp_path, holdout=0)
    assert data.class_names == ("cat", "dog")
    assert any("metadata.csv has no column label" in note for note in data.report.notes)


def test_a_damaged_label_file_in_a_zip_is_named(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a.png", png(0))
        made.writestr("dataset.json", '{"labels": [["a.png", 0]]}')
    path.write_bytes(path.read_bytes().replace(b'[["a.png"', b'[["b.png"'))
    with pytest.raises(SnowmeltError, match=r"a\.zip: dataset\.json is damaged"):
        load_data(path, holdout=0)
    assert len(load_data(path, holdout=0, labels="none").training.images) == 1


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_links_in_a_tar_are_what_they_lead_to(tmp_path, name):
    """As the folder that was packed: `tar` stores the second name of a file as a link."""
    folder = tmp_path / "pets"
    (folder / "dog").mkdir(parents=True)
    (folder / "cat").mkdir()
    (folder / "cat" / "0.png").write_bytes(png(0))
    (folder / "cat" / "1.png").hardlink_to(folder / "cat" / "0.png")
    (folder / "dog" / "2.png").symlink_to("../cat/0.png")
    (folder / "dog" / "gone.png").symlink_to("nowhere.png")
    with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as made:
        made.add(folder, ".")
    data = load_data(tmp_path / name, holdout=0)
    assert data.training.labels.tolist() == [0, 0, 1]
    assert data.report.readable == 3
    assert (data.training.images[:] == data.training.images[0]).all()


def test_a_compressed_tar_that_is_called_otherwise_is_told(tmp_path):
    write(tmp_path / "a.tgz", contents()).rename(tmp_path / "a.tar")
    with pytest.raises(SnowmeltError, match=r"a\.tar cannot be read as a tar file.*\n.*its name has to say so"):
        load_data(tmp_path / "a.tar")


def test_one_shard_alone_says_how_its_labels_are_used(tmp_path):
    path = write(tmp_path / "a-000.tar", {"0.png": png(0), "0.cls": b"7"})
    assert any("labels of WebDataset shards" in note for note in load_data(path, holdout=0).report.notes)
    assert load_data(tmp_path / "a-*.tar", holdout=0).class_names == ("7",)


# What could do harm.


@KINDS
def test_names_that_climb_out_reach_nothing(tmp_path, name):
    inner = tmp_path / "inner"
    inner.mkdir()
    data = load_data(write(inner / name, {"../escape.png": png(1), "/etc/x.png": png(2), "ok.png": png(3)}), holdout=0)
    assert len(data.training.images) == 3
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["inner", name])


def test_a_bomb_is_left_out_by_what_it_claims_and_by_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBER", 100_000)
    for name in ("a.zip", "a.tar"):
        path = write(tmp_path / name, {"bomb.png": bytes(10_000_000), **{f"{i}.png": png(i) for i in range(40)}})
        ((broken, reason),) = inspect(path).report.unreadable
        assert broken == "bomb.png"
        assert "zip bomb" in reason


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_damaged_member_is_one_unreadable_picture(tmp_path, damage):
    files = {f"{i:02}.png": png(i) for i in range(40)}
    path = write(tmp_path / "a.zip", files)
    content = bytearray(path.read_bytes())
    at = content.index(b"07.png") + 60
    content[at : at + 20] = bytes(20)
    path.write_bytes(content)
    ((broken, _),) = inspect(path).report.unreadable
    assert broken == "07.png"
    if damage == "cut":
        path.write_bytes(content[:-200])
        with pytest.raises(SnowmeltError, match="cannot be read as a zip file"):
            load_data(path)


def test_a_tar_that_was_cut_short_says_so(tmp_path):
    path = write(tmp_path / "a.tar", {f"{i:02}.png": png(i, (64, 64)) for i in range(10)})
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(SnowmeltError, match="cannot be read"):
        load_data(path)
    (tmp_path / "b.tar.gz").write_bytes(b"nonsense")
    with pytest.raises(SnowmeltError, match="cannot be read as a tar file"):
        load_data(tmp_path / "b.tar.gz")


def test_a_tar_with_a_broken_header_does_not_end_there(tmp_path):
    path = write(tmp_path / "a.tar", {f"{i:02}.png": png(i) for i in range(10)})
    content = bytearray(path.read_bytes())
    content[content.index(b"05.png") + 100] ^= 1  # its checksum fails
    path.write_bytes(content)
    with pytest.raises(SnowmeltError, match="cannot be read as a tar file: damaged or cut off at byte"):
        load_data(path)


def test_a_damaged_xz_is_told(tmp_path):
    path = write(tmp_path / "a.tar.xz", {f"{i}.png": png(i, (64, 64)) for i in range(10)})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(SnowmeltError, match="cannot be read as a tar file"):
        load_data(path)


def test_an_archive_without_pictures_says_what_it_holds(tmp_path):
    with pytest.raises(SnowmeltError, match=r"No images in .*a\.zip.*\n.*found 1 \.txt"):
        load_data(write(tmp_path / "a.zip", {"x.txt": b""}))


def test_an_encrypted_member_is_named(tmp_path):
    path = write(tmp_path / "a.zip", {f"{i}.png": png(i) for i in range(2)})
    content = bytearray(path.read_bytes())
    for marker, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.index(marker)
        content[at + flag] |= 1
    path.write_bytes(content)
    with pytest.raises(SnowmeltError, match="encrypted"):
        load_data(path, allow_unreadable=False)


def test_folders_that_windows_writes_are_folders(tmp_path):
    path = write(tmp_path / "a.zip", {f"{name}\\{i}.png": png(i) for name in ("cats", "dogs") for i in range(3)})
    data = load_data(path, holdout=0)
    assert data.class_names == ("cats", "dogs")
    assert data.training.named(0) == "cats/0.png"
