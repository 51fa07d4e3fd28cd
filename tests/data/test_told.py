"""What is known of pictures beside their class: found, checked, kept with its picture, and told the network."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from snowmelt import api
from snowmelt.base.errors import SnowmeltError
from snowmelt.cli.main import run
from snowmelt.data.cache import Cache
from snowmelt.data.pipeline import load_data
from snowmelt.data.sources import open_source
from snowmelt.data.told import read_values

COUNT = 24


def shade(number):
    """The grey of picture `number`, from which everything that is known of it can be told."""
    return 10 * number


@pytest.fixture
def folder(tmp_path):
    """Even pictures in two subfolders, a table of two numbers of each, and pairs: thrice as dark, and larger."""
    root = tmp_path / "data"
    lines = ["file_name,shade,odd"]
    for number in range(COUNT):
        name = f"{'ab'[number % 2]}/{number:02}"
        for place, size, grey in (("data", 8, shade(number)), ("pairs", 16, shade(number) // 3)):
            path = tmp_path / place / f"{name}.{'png' if place == 'data' else 'bmp'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (size, size), grey).save(path)
        lines.insert(1 + number // 2, f"{name}.png,{shade(number)},{number % 2}")  # in an order of its own
    (root / "known.csv").write_text("\n".join(lines))
    return tmp_path


def known(folder, **options):
    return load_data(folder / "data", cond_values="known.csv", cond_image=str(folder / "pairs"), **options)


@pytest.mark.parametrize("limit", [10**9, 0])
def test_all_that_is_known_stays_with_its_picture(folder, limit, monkeypatch):
    monkeypatch.setattr("snowmelt.data.decoded.fits_memory", lambda size: False)
    data = known(folder, holdout=0.25, cache=Cache(folder / "cache", limit))
    assert [column.name for column in data.conditions.columns] == ["shade", "odd"]
    assert (len(data.training.images), len(data.holdout.images)) == (18, 6)
    for split in (data.training, data.holdout):
        for place, image in enumerate(split.images):
            grey = int(image[0, 0, 0])
            assert split.values[place].tolist() == [grey, grey // 10 % 2]
            assert (split.pairs[place] == grey // 3).all()
            assert split.labels[place] == grey // 10 % 2


def test_the_network_is_told_numbers_of_mean_0_and_deviation_1_and_pairs_as_images(folder):
    data = known(folder, holdout=0)
    _, cond = data.training.take(torch.arange(COUNT), data.conditions)
    torch.testing.assert_close(cond.values.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(cond.values.std(0, correction=0), torch.ones(2), atol=1e-6, rtol=0)
    assert cond.image.shape == (COUNT, 1, 8, 8)
    greys = data.training.images[:][:, 0, 0, 0] // 3
    torch.testing.assert_close(cond.image[:, 0, 0, 0], greys.float() / 127.5 - 1)


def test_where_a_pair_is_broken_its_picture_is_left_out(folder):
    broken = folder / "pairs" / "b" / "07.bmp"
    broken.write_bytes(broken.read_bytes()[:100])
    (folder / "data" / "a" / "10.png").write_bytes(b"x")
    data = known(folder, holdout=0, allow_unreadable=True)
    assert len(data.training.images) == COUNT - 2
    reasons = dict(data.report.unreadable)
    assert reasons["b/07.png"].startswith("its pair: ")
    assert reasons["a/10.png"].startswith("not a picture")
    assert not {70, 100} & set(data.training.values[:, 0].tolist())


def test_what_breaks_while_it_is_used_gives_way_to_the_next_with_all_its_own(folder, monkeypatch):
    monkeypatch.setattr("snowmelt.data.decoded.fits_memory", lambda size: False)
    data = known(folder, holdout=0, allow_unreadable=True, cache=Cache(folder / "cache", 0))
    order = data.training.values[:, 0].tolist()
    for place, name in (("data", f"a/{int(order[2]) // 10:02}.png"), ("pairs", f"a/{int(order[5]) // 10:02}.bmp")):
        (folder / place / name).write_bytes(b"BM")
    pixels, cond = data.training.take(torch.arange(7), data.conditions)
    assert pixels[:, 0, 0, 0].tolist() == [order[place] for place in (0, 1, 3, 3, 4, 6, 6)]
    assert cond.label.tolist() == [grey // 10 % 2 for grey in pixels[:, 0, 0, 0].tolist()]
    shades = torch.tensor([[grey, grey // 10 % 2] for grey in pixels[:, 0, 0, 0].tolist()])
    assert cond.values.equal(data.conditions.normalised(shades))


def test_when_no_pair_is_whole_it_ends(folder, monkeypatch):
    monkeypatch.setattr("snowmelt.data.decoded.fits_memory", lambda size: False)
    data = known(folder, holdout=0, allow_unreadable=True, cache=Cache(folder / "cache", 0))
    for number in range(COUNT):
        place, suffix = (("data", "png"), ("pairs", "bmp"))[number // 2 % 2]
        (folder / place / "ab"[number % 2] / f"{number:02}.{suffix}").write_bytes(b"BM")
    with pytest.raises(SnowmeltError, match="together with its pair"):
        data.training.take(torch.arange(4), data.conditions)


def test_another_table_or_pair_is_other_data(folder):
    first = known(folder).fingerprint
    assert known(folder).fingerprint == first
    table = folder / "data" / "known.csv"
    table.write_text(table.read_text().replace("10,1", "11,1"))
    second = known(folder).fingerprint
    Image.new("L", (16, 16), 99).save(folder / "pairs" / "a" / "02.bmp")
    assert len({first, second, known(folder).fingerprint}) == 3


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("file_name,x\na/00.png,1\n", "has no row for 23 of 24 images; the first is a/02.png"),
        ("file_name,x\na/00.png,one\n", "line 2: x is 'one'"),
        ("file_name,x\na/00.png,nan\n", "line 2: x is 'nan'"),
        ("file_name,x\na/00.png,\n", "line 2: x is ''"),
        ("file_name\na/00.png\n", "holds no columns of numbers"),
        ("", "holds no columns of numbers"),
        ("file_name,x\na/00.png,1\na/00.png,2\n", "line 3: a/00.png is on line 2 already"),
        ("x\n1\n2\n", "has 2 rows for 24 images"),
        ("file_name,x,x\na/00.png,1,2\n", "two columns are called x"),
        ("file_name,x\n" + "".join(f"{'ab'[i % 2]}/{i:02}.png,5\n" for i in range(24)), "x is 5 for every image"),
    ],
)
def test_a_table_that_says_nothing_is_refused_with_the_place(folder, table, words):
    path = folder / "t.csv"
    if "line 2: x" in words:
        table += "".join(f"{'ab'[i % 2]}/{i:02}.png,{i}\n" for i in range(1, 24))
    path.write_text(table)
    with pytest.raises(SnowmeltError, match=words):
        load_data(folder / "data", cond_values=str(path))


def test_json_lines_and_rows_without_names_are_tables_too(folder, tmp_path):
    source = open_source(folder / "data")
    names = [source.items.name(index) for index in range(COUNT)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"file_name": n, "x": i}) + "\n" for i, n in enumerate(names)))
    (tmp_path / "u.csv").write_text("x\n" + "".join(f"{i}\n" for i in range(COUNT)))
    for name in ("t.jsonl", "u.csv"):
        columns, values = read_values(str(tmp_path / name), names, tmp_path)
        assert columns == ("x",)
        assert values[:, 0].tolist() == [*range(COUNT)]


@pytest.mark.parametrize("power", ["e300", "e-300"])
def test_numbers_that_cannot_be_scaled_are_refused(folder, power):
    table = folder / "data" / "known.csv"
    rows = table.read_text().splitlines()
    table.write_text("\n".join([rows[0], *(row.replace("0,", f"0{power},") for row in rows[1:])]))
    with pytest.raises(SnowmeltError, match=r"shade is .* whose deviation is no number"):
        load_data(folder / "data", cond_values="known.csv")


def test_a_column_that_only_some_rows_have_is_refused(tmp_path):
    rows = [{"file_name": "a.png", "x": 1}, {"file_name": "b.png", "x": 2, "y": 3}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SnowmeltError, match="line 1: y is None"):
        read_values(str(tmp_path / "t.jsonl"), ["a.png", "b.png"], tmp_path)


def test_blanks_after_commas_belong_to_no_name(tmp_path):
    (tmp_path / "t.csv").write_text("file_name, x\na.png, 1\nb.png, 2\n")
    assert read_values(str(tmp_path / "t.csv"), ["a.png", "b.png"], tmp_path)[0] == ("x",)


def test_pairs_that_are_missing_or_ambiguous_are_named(folder):
    (folder / "pairs" / "a" / "02.bmp").unlink()
    with pytest.raises(SnowmeltError, match=r"holds nothing for 1 of 24 images; the first is a/02\.png"):
        load_data(folder / "data", cond_image=str(folder / "pairs"))
    for suffix in ("png", "bmp"):
        Image.new("L", (8, 8)).save(folder / "pairs" / "a" / f"02.{suffix}")
    with pytest.raises(SnowmeltError, match=r"a/02\.bmp and a/02\.png could both be meant"):
        load_data(folder / "data", cond_image=str(folder / "pairs"))
    with pytest.raises(SnowmeltError, match="no such folder"):
        load_data(folder / "data", cond_image=str(folder / "nowhere"))


def test_the_whole_way_from_training_to_a_sample(folder, minimal, capsys):
    here = ["--cond-values", "known.csv", "--cond-image", folder / "pairs", "--flip", "--augment", "0.5"]
    out = folder / "run"
    arguments = ["train", folder / "data", "--out", out, "--preset", minimal, "--steps", "4", *here]
    assert run([str(argument) for argument in arguments]) == 0
    assert "The network is told of each image: shade (0 to 230), odd (0 to 1)" in capsys.readouterr().out
    assert run(["train", "--resume", str(out), "--steps", "6"]) == 0
    assert list((out / "previews").iterdir())
    drawn = folder / "drawn"
    ask = ["--cond-image", folder / "pairs", "--value", "shade=50", "--class", "b", "--steps", "2", "--guidance", "2"]
    assert run(["sample", str(out), "--out", str(drawn), *map(str, ask)]) == 0
    rows = [json.loads(line) for line in (drawn / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == COUNT
    assert {row["values"]["shade"] for row in rows} == {50}
    assert {row["values"]["odd"] for row in rows} == {0, 1}
    assert rows[1]["made_from"] == "a/02.bmp"
    assert {row["class"] for row in rows} == {"b"}


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pairs_of_other_channels_than_the_images_are_shown_beside_them(folder, minimal, channels):
    arguments = ["--preset", minimal, "--steps", "1", "--channels", channels, "--cond-image", folder / "pairs"]
    for path in (folder / "pairs").rglob("*.bmp"):
        Image.open(path).convert("L" if channels == 3 else "RGB").save(path)
    out = folder / "run"
    assert run([str(text) for text in ("train", folder / "data", "--out", out, *arguments)]) == 0
    (shown,) = (out / "previews").iterdir()
    width, height = Image.open(shown).size
    assert width == 3 * height + 2 * 8
    assert "on the left what they are made from, then" in (out / "report.html").read_text()


def test_what_is_asked_for_changes_the_sample(folder, minimal):
    out = api.train(
        folder / "data",
        out=folder / "run",
        preset=minimal,
        steps=60,
        labels="none",
        cond_values="known.csv",
        cond_image=str(folder / "pairs"),
        label_dropout=0,
    )
    model = api.load(out)
    pairs = torch.from_numpy(np.stack([np.full((1, 8, 8), grey, np.uint8) for grey in (0, 255)]))

    def drawn(**asked):
        return api.sample(model, 2, steps=2, sampler="ddim", **asked)

    one = drawn(values={"shade": 0, "odd": 0}, cond_images=pairs)
    assert one.equal(drawn(values={"shade": 0, "odd": 0}, cond_images=pairs))
    assert not one.equal(drawn(values={"shade": 230, "odd": 0}, cond_images=pairs))
    assert not one.equal(drawn(values={"shade": 0, "odd": 0}, cond_images=pairs.flip(0)))
    torch.testing.assert_close(one[1], drawn(values={"shade": 0, "odd": 0}, cond_images=pairs[1:])[1], atol=1, rtol=0)
    assert not one[1].equal(drawn(values={"shade": 0, "odd": 0}, cond_images=pairs[:1])[1])
    with pytest.raises(SnowmeltError, match=r"Unknown value 'shadow'. Did you mean 'shade'"):
        drawn(values={"shadow": 1}, cond_images=pairs)
    with pytest.raises(SnowmeltError, match="makes images from others"):
        drawn()
    with pytest.raises(SnowmeltError, match=r"of shape \[2, 1, 4, 8\]"):
        drawn(cond_images=pairs[:, :, :4])


def test_a_model_that_is_told_nothing_refuses_to_be_told(finished_run):
    model = api.load(finished_run)
    with pytest.raises(SnowmeltError, match="trained without values"):
        api.sample(model, 1, values={"x": 1})
    assert run(["sample", str(finished_run), "--cond-image", str(finished_run), "--out", "x"]) == 2
    assert run(["sample", str(finished_run), "--value", "x", "--out", "x"]) == 2
