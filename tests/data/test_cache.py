"""Pictures are decoded once; what is kept is right, whole, shared, bounded, and can be done without."""

import errno
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from snowmelt.base.errors import SnowmeltError
from snowmelt.data import decoded, files, scan
from snowmelt.data.cache import Cache, open_cache, parse_bytes
from snowmelt.data.files import FolderFiles
from snowmelt.data.items import UnreachableError
from snowmelt.data.pipeline import load_data

LARGE = 10**9


@pytest.fixture
def folder(tmp_path, picture):
    """Thirty pictures."""
    for number in range(30):
        picture(tmp_path / "data" / f"{number:02}.png", "RGB", (20, 20), seed=number)
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", LARGE)


@pytest.fixture
def decodings(monkeypatch):
    """How many pictures were decoded so far."""
    counted = []
    original = files.read_image

    def counting(file, target):
        counted.append(1)
        return original(file, target)

    monkeypatch.setattr(files, "read_image", counting)
    return counted


@pytest.fixture
def headers(monkeypatch):
    """How many headers were read so far."""
    counted = []
    original = files.read_header
    monkeypatch.setattr(files, "read_header", lambda file: (counted.append(1), original(file))[1])
    return counted


def pixels_of(data):
    return sorted(image.numpy().tobytes() for images in (data.training.images, data.holdout.images) for image in images)


def test_the_second_start_reads_no_picture(folder, cache, decodings, headers):
    first = load_data(folder, cache=cache)
    assert (len(decodings), len(headers)) == (30, 30)
    second = load_data(folder, cache=cache)
    assert (len(decodings), len(headers)) == (30, 30)
    assert second.training.images[:].equal(first.training.images[:])
    assert second.holdout.images[:].equal(first.holdout.images[:])
    assert second.fingerprint == first.fingerprint
    assert second.report == first.report


def test_what_is_kept_is_what_is_decoded_without_a_cache(folder, cache, picture):
    picture(folder / "30.png", "L", (33, 12))
    (folder / "31.png").write_bytes(b"x")
    for options in ({}, {"size": (9, 14)}, {"channels": 1}, {"fit": "pad", "size": 16}):
        without = load_data(folder, cache=Cache(folder.parent / "none", 0), **options)
        for _ in range(2):
            kept = load_data(folder, cache=cache, **options)
            assert kept.training.images[:].equal(without.training.images[:])
            assert kept.holdout.images[:].equal(without.holdout.images[:])
            assert (kept.fingerprint, kept.report) == (without.fingerprint, without.report)


def test_each_way_to_bring_them_to_size_is_kept_apart(folder, cache):
    seen = {load_data(folder, cache=cache, **options).fingerprint for options in ({}, {"size": 8}, {"channels": 1})}
    assert len(seen) == 3
    assert len(cache.entries()) == 3


def test_a_changed_picture_is_seen_even_if_its_time_and_length_are_not_changed(folder, cache, picture):
    for number in range(30):
        picture(folder / f"{number:02}.bmp", "RGB", (20, 20), seed=number)
        (folder / f"{number:02}.png").unlink()
    before = load_data(folder, cache=cache)
    target = folder / "07.bmp"
    old = target.stat()
    content = bytearray(target.read_bytes())
    content[-1] ^= 255
    target.write_bytes(content)
    os.utime(target, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert load_data(folder, cache=cache).fingerprint != before.fingerprint


def test_the_same_pictures_elsewhere_are_not_decoded_again(folder, cache, decodings, tmp_path):
    first = load_data(folder, cache=cache)
    shutil.copytree(folder, tmp_path / "copy")
    second = load_data(tmp_path / "copy", cache=cache)
    assert len(decodings) == 30
    assert second.fingerprint == first.fingerprint
    assert len(cache.entries()) == 1


def test_a_decoder_that_is_installed_later_reads_them_anew(folder, cache, headers, monkeypatch):
    load_data(folder, cache=cache)
    read = len(headers)
    for module in (scan, decoded):
        monkeypatch.setattr(module, "decoders", lambda: "tifffile 1")
    load_data(folder, cache=cache)
    assert len(headers) == 2 * read


def test_what_could_not_be_reached_is_tried_again(folder, cache, monkeypatch):
    whole = FolderFiles.open

    def refused(self, index):
        if index == 1:
            raise OSError(errno.EIO, "Input/output error")
        return whole(self, index)

    monkeypatch.setattr(FolderFiles, "open", refused)
    broken = load_data(folder, cache=cache, allow_unreadable=True).report.unreadable
    assert [why for _, why in broken] == ["Input/output error"]
    monkeypatch.setattr(FolderFiles, "open", whole)
    assert load_data(folder, cache=cache).report.unreadable == ()


def test_the_pictures_are_mapped_not_read(folder, cache):
    load_data(folder, cache=cache)
    images = load_data(folder, cache=cache).training.images
    entry = cache.entries()[0]
    with open("/proc/self/maps") as maps:  # noqa: PTH123
        assert str(entry.folder / "pixels.npy") in maps.read()
    assert images.resident


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_deep_pictures_are_kept_in_their_own_type_with_their_range(tmp_path, cache, dtype):
    from PIL import Image

    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for number in range(6):
        plane = random.random((8, 8)) * 4000
        Image.fromarray(plane.astype(dtype)).save(tmp_path / "data" / f"{number}.tif")
    first, second = (load_data(tmp_path / "data", cache=cache) for _ in range(2))
    assert first.value_range == second.value_range
    assert second.value_range.high == (4095 if dtype == "uint16" else second.training.images[:].max().item())
    assert str(second.training.images.dtype) == f"torch.{dtype}"


def test_broken_pictures_are_named_from_the_cache_too(folder, cache, decodings):
    broken = folder / "07.png"
    broken.write_bytes(broken.read_bytes()[:200])
    first = load_data(folder, cache=cache)
    before = len(decodings)
    second = load_data(folder, cache=cache)
    assert len(decodings) == before
    assert second.report.unreadable == first.report.unreadable
    assert second.report.unreadable[0][0] == "07.png"


@pytest.mark.parametrize("damage", ["truncated", "gone", "about"])
def test_a_damaged_entry_is_made_again(folder, cache, decodings, damage):
    first = load_data(folder, cache=cache)
    entry = cache.entries()[0].folder
    if damage == "truncated":
        content = (entry / "pixels.npy").read_bytes()
        (entry / "pixels.npy").unlink()  # `first` has it mapped
        (entry / "pixels.npy").write_bytes(content[:500])
    elif damage == "gone":
        (entry / "digests.npy").unlink()
    else:
        (entry / "about.json").write_text("{")
    second = load_data(folder, cache=cache)
    assert len(decodings) == 60
    assert second.training.images[:].equal(first.training.images[:])
    load_data(folder, cache=cache)
    assert len(decodings) == 60


def test_what_is_over_the_limit_is_not_kept(folder, tmp_path):
    cache = Cache(tmp_path / "cache", 30 * 20 * 20 * 3 - 1)
    assert load_data(folder, cache=cache).training.images.resident
    assert cache.entries() == []


def test_what_was_not_used_for_longest_makes_room(folder, tmp_path):
    one = 30 * 20 * 20 * 3
    cache = Cache(tmp_path / "cache", 3 * one)
    load_data(folder, cache=cache)
    load_data(folder, cache=cache, fit="pad")
    time.sleep(0.05)
    load_data(folder, cache=cache)  # used again, and later
    load_data(folder, cache=cache, fit="stretch")
    assert [entry.about["target"]["fit"] for entry in cache.entries()] == ["stretch", "crop"]
    assert sum(entry.bytes for entry in cache.entries()) < 3 * one


def test_images_outlive_their_entry(folder, cache):
    data = load_data(folder, cache=cache)
    before = data.training.images[:].clone()
    assert len(cache.prune(0)) == 1
    assert cache.entries() == []
    assert data.training.images[:].equal(before)


def test_half_made_entries_are_swept_when_they_are_old(cache):
    for name, age in ((".tmp-old", 25 * 3600), (".tmp-new", 60)):
        place = cache.root / "pixels" / name
        place.mkdir(parents=True)
        os.utime(place, (time.time() - age,) * 2)
    cache.prune(LARGE)
    assert [place.name for place in (cache.root / "pixels").iterdir()] == [".tmp-new"]


@pytest.mark.parametrize("about", ["garbage", "{}", "[]", None])
def test_a_damaged_entry_is_not_listed_and_is_swept(cache, folder, snowmelt, monkeypatch, about):
    monkeypatch.setenv("SNOWMELT_CACHE", str(cache.root))
    load_data(folder, cache=cache)
    (entry,) = (cache.root / "pixels").iterdir()
    (entry / "about.json").unlink()
    if about is not None:
        (entry / "about.json").write_text(about)
    assert snowmelt("data", "cache").code == 0
    assert cache.entries() == []
    cache.prune(LARGE)
    assert not entry.exists()


def test_that_nothing_is_kept_is_told_unless_it_was_asked_for(folder):
    def told(limit):
        return load_data(folder, cache=Cache(folder.parent / "none", limit)).report.lines()

    why = "More than the cache may hold (100 bytes)"
    assert f"{why}: the images are in memory, and are decoded again at the next start" in told(100)
    assert not any("next start" in line for line in told(0))


def test_a_disk_too_small_costs_only_the_cache(folder, small_disk):
    disk = small_disk(16)  # kB, of which the pictures take 36
    data = load_data(folder, cache=Cache(disk / "cache", LARGE))
    without = load_data(folder, cache=Cache(disk / "cache", 0))
    assert data.training.images[:].equal(without.training.images[:])
    assert any("No space left" in line and "decoded again at the next start" in line for line in data.report.lines())
    assert not list((disk / "cache" / "pixels").glob("*"))


def test_a_cache_that_cannot_be_made_costs_only_the_cache(folder, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    data = load_data(folder, cache=Cache(tmp_path / "file" / "cache", LARGE))
    assert len(data.training.images) + len(data.holdout.images) == 30
    assert any(line.startswith("The cache cannot be used (") for line in data.report.lines())


SCRIPT = """
import sys
from pathlib import Path
from snowmelt.data import files
from snowmelt.data.cache import Cache
from snowmelt.data.pipeline import load_data
counted, original = [], files.read_image
files.read_image = lambda file, target: (counted.append(1), original(file, target))[1]
print("ready", flush=True)
sys.stdin.readline()
data = load_data(sys.argv[1], cache=Cache(Path(sys.argv[2]), 10**9))
print(len(counted), data.fingerprint)
"""


def test_two_runs_at_once_decode_it_once(tmp_path, picture):
    for number in range(200):
        picture(tmp_path / "data" / f"{number}.jpg", "RGB", (200, 200), seed=number)
    arguments = [sys.executable, "-c", SCRIPT, tmp_path / "data", tmp_path / "cache"]
    runs = [subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for run in runs:
        run.stdout.readline()
    for run in runs:  # all are ready, so they begin together
        run.stdin.write("go\n")
        run.stdin.flush()
    told = [run.communicate(timeout=60)[0].split() for run in runs]
    assert sum(int(count) for count, _ in told) == 200
    assert len({fingerprint for _, fingerprint in told}) == 1


def test_a_run_killed_while_it_decodes_is_in_nobodys_way(tmp_path, picture, decodings):
    for number in range(300):
        picture(tmp_path / "data" / f"{number}.jpg", "RGB", (300, 300), seed=number)
    cache = Cache(tmp_path / "cache", LARGE)
    run = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, tmp_path / "data", cache.root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    run.stdout.readline()
    run.stdin.write("go\n")
    run.stdin.flush()
    deadline = time.monotonic() + 30
    while not list((cache.root / "pixels").glob(".tmp-*/pixels.npy")) and time.monotonic() < deadline:
        time.sleep(0.005)
    run.kill()
    run.communicate()
    assert len(list((cache.root / "pixels").glob(".tmp-*"))) == 1
    load_data(tmp_path / "data", cache=cache)
    assert len(decodings) == 300
    assert len(cache.entries()) == 1


def test_the_users_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("SNOWMELT_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("SNOWMELT_CACHE_LIMIT", "2.5 MB")
    assert open_cache() == Cache(tmp_path / "here", 2_500_000)
    monkeypatch.setenv("SNOWMELT_CACHE_LIMIT", "much")
    with pytest.raises(SnowmeltError, match="SNOWMELT_CACHE_LIMIT=much is not understood"):
        open_cache()
    monkeypatch.delenv("SNOWMELT_CACHE_LIMIT")
    assert 0 < open_cache().limit <= 100 * 10**9


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("17", 17), ("20GB", 20 * 10**9), ("500 mb", 5 * 10**8), ("1.5T", 15 * 10**11)]
)
def test_sizes_as_people_write_them(text, count):
    assert parse_bytes(text, "--limit") == count


def test_the_command_lists_and_deletes(folder, tmp_path, monkeypatch, capsys):
    from snowmelt.cli.main import run

    monkeypatch.setenv("SNOWMELT_CACHE", str(tmp_path / "cache"))
    load_data(folder)
    load_data(folder, size=8)
    assert run(["data", "cache"]) == 0
    told = capsys.readouterr().out
    assert "20x20x3 uint8" in told
    assert str(folder) in told
    assert run(["data", "cache", "--limit", "20kB"]) == 0
    assert "Deleted 1 data set, " in capsys.readouterr().out
    assert run(["data", "cache", "--clear", "--json"]) == 0
    assert len(open_cache().entries()) == 0
    assert run(["data", "cache", "--clear", "--limit", "1GB"]) == 2
    assert run(["data", "cache", "--limit", "lots"]) == 2


def test_arrays_are_made_once_and_made_again_where_they_are_damaged(cache):
    made = []

    def make():
        made.append(1)
        return {"places": np.arange(6).reshape(3, 2), "about": np.array('{"ä": 1}')}

    for _ in range(2):
        found = cache.arrays("index-1", make)
        assert found["places"].tolist() == [[0, 1], [2, 3], [4, 5]]
        assert str(found["about"]) == '{"ä": 1}'
    assert len(made) == 1
    place = cache.root / "memos" / "index-1.npz"
    for content in (b"", place.read_bytes()[:300], place.read_bytes().replace(b"\3\0\0\0", b"\4\0\0\0")):
        place.write_bytes(content)
        assert cache.recall_arrays("index-1") is None
    cache.arrays("index-1", make)
    assert len(made) == 2
    assert cache.recall_arrays("index-1") is not None


def test_arrays_without_a_place_to_keep_them_are_made_each_time(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    nowhere = Cache(tmp_path / "file" / "cache", LARGE)
    made = []
    for _ in range(2):
        assert nowhere.arrays("index-1", lambda: (made.append(1), {"a": np.arange(3)})[1])["a"].tolist() == [0, 1, 2]
    assert len(made) == 2


def test_of_memos_those_used_last_are_kept(cache, monkeypatch):
    monkeypatch.setattr("snowmelt.data.cache.MOST_MEMO_BYTES", 2500)
    for number in range(3):
        cache.remember_arrays(f"index-{number}", {"a": np.zeros(100)})
        os.utime(cache.root / "memos" / f"index-{number}.npz", (number, number))
    assert cache.recall_arrays("index-0") is not None  # is thereby used last
    cache.prune(LARGE)
    assert sorted(place.stem for place in (cache.root / "memos").iterdir()) == ["index-0", "index-2"]
    cache.prune(0)
    assert list((cache.root / "memos").iterdir()) == []


@pytest.mark.parametrize(("what", "limit"), [("header", LARGE), ("read", LARGE), ("digest", 0)])
def test_what_a_disk_refused_once_is_tried_again(folder, tmp_path, decodings, monkeypatch, what, limit):
    monkeypatch.setattr(decoded, "fits_memory", lambda size: limit > 0)
    cache, original = Cache(tmp_path / "cache", limit), getattr(FolderFiles, what)

    def refusing(self, index, *arguments):
        if self.names[index] == "07.png":
            raise UnreachableError("Input/output error")
        return original(self, index, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(FolderFiles, what, refusing)
        found = load_data(folder, cache=cache, size=16)
        assert found.report.unreadable == (("07.png", "Input/output error"),)
    whole = load_data(folder, cache=cache, size=16)
    assert not whole.report.unreadable
    assert whole.fingerprint == load_data(folder, cache=Cache(tmp_path / "other", limit), size=16).fingerprint
    read = len(decodings)
    assert load_data(folder, cache=cache, size=16).fingerprint == whole.fingerprint
    assert len(decodings) == read
