"""Pictures that are decoded each time they are used are the same pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from snowmelt.base.errors import SnowmeltError
from snowmelt.data import files
from snowmelt.data.cache import Cache
from snowmelt.data.pipeline import load_data
from snowmelt.training.checkpoint import load_latest


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr("snowmelt.data.decoded.fits_memory", lambda size: False)


@pytest.fixture
def live(tmp_path, picture, little_memory):
    """A function that loads a folder of forty pictures without keeping any."""
    for number in range(40):
        picture(tmp_path / "data" / f"{number:02}.png", "RGB", (20, 20), seed=number)
    return lambda **options: load_data(tmp_path / "data", cache=Cache(tmp_path / "none", 0), **options)


def test_they_are_the_same_as_kept_ones(live, tmp_path):
    kept = load_data(tmp_path / "data", cache=Cache(tmp_path / "cache", 10**9), holdout=0)
    images = live(holdout=0).training.images
    assert not images.resident
    rows = torch.tensor([3, 39, 3, 0])
    assert images[rows].equal(kept.training.images[rows])
    assert images[7].equal(kept.training.images[7])
    assert images[5:9].equal(kept.training.images[5:9])
    assert images.shape == kept.training.images.shape
    with pytest.raises(IndexError):
        images[40]


def test_equal_files_do_not_straddle_the_split(live, tmp_path):
    for number in range(40):
        (tmp_path / "data" / f"copy{number:02}.png").write_bytes((tmp_path / "data" / f"{number:02}.png").read_bytes())
    data = live(holdout=0.25)
    held = {image.numpy().tobytes() for image in data.holdout.images}
    assert len(data.holdout.images) == 20
    assert len(held) == 10
    assert not held & {image.numpy().tobytes() for image in data.training.images}


def test_in_place_of_an_unreadable_picture_comes_the_next(live, tmp_path):
    whole = live(holdout=0)
    expected = whole.training.images[torch.tensor([0, 8, 8, 9])]
    last_expected = whole.training.images[0]
    images = live(holdout=0).training.images
    broken = tmp_path / "data" / "07.png"
    broken.write_bytes(broken.read_bytes()[:300])
    assert images[torch.tensor([0, 7, 8, 9])].equal(expected)
    assert list(images.broken) == ["07.png"]
    last = tmp_path / "data" / "39.png"
    last.write_bytes(last.read_bytes()[:300])
    assert images[39].equal(last_expected)


def test_too_many_unreadable_pictures_are_an_error(live, tmp_path):
    data, allowed = live(holdout=0), live(holdout=0, allow_unreadable=True)
    for number in range(5):
        place = tmp_path / "data" / f"{number:02}.png"
        place.write_bytes(place.read_bytes()[:300])
    with pytest.raises(SnowmeltError, match=r"5 of 40 images cannot be read; the first is 0.*\n.*--allow-unreadable"):
        data.training.images[0:5]
    assert len(allowed.training.images[0:5]) == 5
    for place in (tmp_path / "data").iterdir():
        place.unlink()
    with pytest.raises(SnowmeltError, match="None of the images"):
        allowed.training.images[0]


def test_a_run_on_them_is_the_same_run(live, tmp_path, minimal, monkeypatch):
    from snowmelt import api
    from snowmelt.training.metrics import read_metrics

    def losses(name, cache_limit):
        monkeypatch.setenv("SNOWMELT_CACHE_LIMIT", cache_limit)
        monkeypatch.setenv("SNOWMELT_CACHE", str(tmp_path / "cache"))
        out = api.train(tmp_path / "data", out=tmp_path / name, preset=minimal, steps=6, log_every=1, holdout=0, size=8)
        return [row["loss"] for row in read_metrics(out / "metrics.jsonl") if "loss" in row]

    assert losses("live", "0") == losses("kept", "1GB")


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("room", [("1GB", "0"), ("0", "1GB")])
def test_a_run_goes_on_and_is_judged_where_there_is_another_room_for_its_pictures(
    room, broken, live, tmp_path, minimal, monkeypatch
):
    from snowmelt import api
    from snowmelt.training.judged import data_of

    monkeypatch.setenv("SNOWMELT_CACHE", str(tmp_path / "cache"))
    if broken:  # its header is whole
        (tmp_path / "data" / "07.png").write_bytes((tmp_path / "data" / "07.png").read_bytes()[:300])
    whole, held_out = [], []
    for limit in room:
        monkeypatch.setenv("SNOWMELT_CACHE_LIMIT", limit)
        if not whole:
            run = api.train(tmp_path / "data", out=tmp_path / "run", preset=minimal, steps=2, size=8, holdout=0.25)
        data, remarks = data_of(run, api.load(run))
        assert remarks == []
        whole.append(data.training.images[:])
        held_out.append(data.holdout.images[:])
        # Begun without room, the broken one counts as an image, in whose place another is taken: none can be kept.
        assert data.training.images.resident == (limit == "1GB" and not (broken and room[0] == "0"))
    assert whole[0].equal(whole[1])
    assert held_out[0].equal(held_out[1])
    assert len(held_out[0]) == (9 if broken and room[0] == "1GB" else 10)
    assert load_latest(api.resume(run, steps=4))[0].step == 4


@pytest.mark.parametrize("room", [(10**9, 0), (0, 10**9)])
def test_the_range_of_values_is_the_same_in_another_room(room, little_memory, tmp_path, monkeypatch):
    for module in ("decoded", "pipeline"):
        monkeypatch.setattr(f"snowmelt.data.{module}.SAMPLED", 2)
    (tmp_path / "data").mkdir()
    for number in range(40):
        pixels = np.full((8, 8), 4000 if number == 7 else 100 + number, np.uint16)
        Image.fromarray(pixels).save(tmp_path / "data" / f"{number:02}.png")
    first = load_data(tmp_path / "data", cache=Cache(tmp_path / "cache", room[0]))
    assert first.value_range.high == (4095 if room[0] else 255)
    assert ("of 2 images are cut off" in " ".join(first.report.notes)) == (not room[0])
    second = load_data(tmp_path / "data", cache=Cache(tmp_path / "cache", room[1]), known_by=first.known_by)
    assert (second.value_range, second.fingerprint) == (first.value_range, first.fingerprint)
    assert ("of 2 images are cut off" in " ".join(second.report.notes)) == (not room[0])
    assert first.training.images.resident != second.training.images.resident


def test_a_picture_that_breaks_while_training_is_named_in_the_log(live, tmp_path, minimal, monkeypatch):
    from snowmelt import api
    from snowmelt.training.metrics import read_metrics

    live()
    broken = tmp_path / "data" / "07.png"
    broken.write_bytes(broken.read_bytes()[:300])  # its header is whole
    monkeypatch.setenv("SNOWMELT_CACHE_LIMIT", "0")
    run = api.train(tmp_path / "data", out=tmp_path / "run", preset=minimal, steps=12, log_every=3, size=8)
    log = (run / "log.txt").read_text()
    assert log.count("07.png cannot be read (image file is truncated): the next image took its place") == 1
    assert all(0 <= row["waiting"] <= 1 for row in read_metrics(run / "metrics.jsonl") if "waiting" in row)


def test_the_second_start_reads_no_file(live, monkeypatch):
    first, counted = live(), []
    original = files.FolderFiles.open
    monkeypatch.setattr(files.FolderFiles, "open", lambda self, index: (counted.append(1), original(self, index))[1])
    second = live()
    assert counted == []
    assert second.fingerprint == first.fingerprint
