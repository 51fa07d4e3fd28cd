import json
import os

import numpy as np
import pytest

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.sources.beside import rows_of
from snowmelt.data.sources.labels import array_labels, file_labels

NAMES = ["cat_1.png", "b/dog_2.png", "b/cat_3.png"]


def test_prefix_is_the_name_up_to_the_first_underscore(tmp_path):
    labels, classes, _ = file_labels(["red_cat_1.png", *NAMES], "prefix", tmp_path)
    assert classes == ("cat", "dog", "red")
    assert labels.tolist() == [2, 0, 1, 0]


@pytest.mark.parametrize("name", ["plain.png", "_1.png"])
def test_a_name_without_prefix_is_named(tmp_path, name):
    with pytest.raises(SnowmeltError, match=f"1 of 4 files have no underscore.*{name}"):
        file_labels([*NAMES, name], "prefix", tmp_path)


def test_folder_labels_refuse_a_loose_file(tmp_path):
    with pytest.raises(SnowmeltError, match=r"lie in no subfolder.*cat_1\.png"):
        file_labels(NAMES, "folder", tmp_path)


@pytest.fixture
def table(tmp_path):
    """A function that writes rows as a table of the given kind."""

    def write(kind, rows):
        path = tmp_path / f"labels.{kind}"
        if kind == "csv":
            path.write_text("\ufefffile_name,label\n" + "".join(f"{name},{label}\n" for name, label in rows))
        else:
            path.write_text("".join(json.dumps({"file_name": n, "label": v}) + "\n\n" for n, v in rows))
        return path

    return write


def test_a_caption_may_hold_what_unicode_calls_the_end_of_a_line():
    line = '{"file_name": "a.png", "text": "one\u2028two"}\r\n'
    rows = rows_of((line + "\n" + line).encode(), "metadata.jsonl")
    assert [(number, row["text"]) for number, row in rows] == [(1, "one\u2028two"), (3, "one\u2028two")]
    assert rows_of(b'file_name,text\r\na.png,"one\ntwo"\r\n', "a.csv")[0][1]["text"] == "one\ntwo"


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_tables(tmp_path, table, kind):
    rows = [("cat_1.png", 10), ("./b/dog_2.png", 2), ("b\\cat_3.png", 10), ("gone.png", 2)]
    path = table(kind, rows)
    for way in (str(path), path.name):  # as a path, or inside the data's folder
        labels, classes, notes = file_labels(NAMES, way, tmp_path)
        assert classes == ("2", "10")  # numbers in their own order
        assert labels.tolist() == [1, 0, 1]
        assert notes == (f"Rows of {way} for files that are not there: 1",)


def test_a_file_missing_from_the_table_is_named(tmp_path, table):
    way = str(table("csv", [("cat_1.png", "a"), ("b/cat_3.png", "b")]))
    with pytest.raises(SnowmeltError, match=r"1 of 3 files are not in .*b/dog_2\.png"):
        file_labels(NAMES, way, tmp_path)


def test_contradicting_rows_are_refused(tmp_path, table):
    way = str(table("jsonl", [("cat_1.png", "a"), ("cat_1.png", "b")]))
    with pytest.raises(SnowmeltError, match=r"line 3: cat_1\.png is labelled b here and a before"):
        file_labels(NAMES, way, tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "name,class\na,b\n", "line 2: no file_name"),
        ("l.csv", "file_name,label\na\n", "line 2: no file_name or no label"),
        ("l.csv", "file_name,label\na, \n", "line 2: no file_name or no label"),
        ("l.jsonl", "{}", "line 1: no file_name"),
        ("l.jsonl", "[1]", "line 1: expected a JSON object"),
        ("l.jsonl", "{", "line 1: not valid JSON"),
        ("l.csv", b"\xff\xfe\x00", "is not UTF-8 text"),
    ],
)
def test_a_broken_table_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SnowmeltError, match=message):
        file_labels(NAMES, str(tmp_path / name), tmp_path)


def test_a_missing_table_and_an_unknown_way_are_named(tmp_path):
    with pytest.raises(SnowmeltError, match=r"--labels no\.csv: there is no such file"):
        file_labels(NAMES, "no.csv", tmp_path)
    with pytest.raises(SnowmeltError, match=r"'prefx'.*'prefix'"):
        file_labels(NAMES, "prefx", tmp_path)


def test_array_labels_may_be_integers_or_text():
    labels, classes = array_labels(np.array([5, 10, 5]), 3, "auto", "x")
    assert classes == ("5", "10")
    assert labels.tolist() == [0, 1, 0]
    labels, classes = array_labels(np.array(["b", "a", "b"]), 3, "auto", "x")
    assert classes == ("a", "b")
    assert labels.tolist() == [1, 0, 1]
    assert array_labels(None, 3, "auto", "x") == (None, None)


def test_an_array_label_that_is_blank_is_named():
    with pytest.raises(SnowmeltError, match="gives 1 of its 3 images no label; the first is image 1"):
        array_labels(np.array(["a", " ", "b"]), 3, "auto", "x")


def test_class_names_can_be_printed_and_written(tmp_path):
    names = [f"{os.fsdecode(folder)}/1.png" for folder in (b"b\xff", b"a\nb", "日本".encode())]
    _, classes, _ = file_labels(names, "folder", tmp_path)
    assert classes == (r"a\nb", r"b\udcff", "日本")


@pytest.mark.parametrize("values", [np.arange(2), np.zeros(3), np.zeros((3, 1), int)])
def test_array_labels_that_do_not_fit_are_refused(values):
    with pytest.raises(SnowmeltError, match="do not fit its 3 images"):
        array_labels(values, 3, "auto", "x")
