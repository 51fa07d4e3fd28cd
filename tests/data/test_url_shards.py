"""WebDataset shards on a web server: the same samples as from disk, few requests, and every trouble named."""

import io
import json
import threading
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from range_server import serve
from shard_files import pixels, png, shard

from snowmelt import api
from snowmelt.base.errors import SnowmeltError
from snowmelt.data.cache import Cache
from snowmelt.data.check import inspect
from snowmelt.data.items import UnreadableError
from snowmelt.data.pipeline import load_data
from snowmelt.data.sources import blocks, open_source, settled_name, url_index, web
from snowmelt.training.metrics import read_metrics
from snowmelt.training.start import run_name

COUNTS = (50, 0, 70, 40)


@pytest.fixture
def folder(tmp_path):
    """Four shards of 160 samples with labels in JSON."""
    seed = 0
    for number, count in enumerate(COUNTS):
        members = []
        for _ in range(count):
            label = json.dumps({"label": "cba"[seed % 3]}).encode()
            members += [(f"{seed:06}.png", png(seed)), (f"{seed:06}.json", label)]
            seed += 1
        shard(tmp_path / "www" / f"shard-{number:03}.tar", members)
    return tmp_path / "www"


@pytest.fixture
def server(folder, tmp_path, monkeypatch):
    """A server of these shards; everything is remembered in a folder of the test's own."""
    monkeypatch.setenv("SNOWMELT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(web, "PAUSES", (0.01, 0.02, 0.04))
    running = serve(folder)
    yield running
    running.close()


@pytest.fixture
def url(server):
    return f"{server.address}/shard-{{000..003}}.tar"


@pytest.fixture
def live(tmp_path, monkeypatch):
    """Settings with which no pixels are kept."""
    monkeypatch.setenv("SNOWMELT_CACHE_LIMIT", "0")
    monkeypatch.setattr("snowmelt.data.decoded.fits_memory", lambda size: False)


def nowhere(tmp_path):
    """A cache of nothing so far."""
    return Cache(tmp_path / "other", 10**9)


def test_pictures_labels_and_fingerprint_are_those_of_the_same_shards_on_disk(url, folder, tmp_path):
    remote, local = load_data(url), load_data(folder, cache=nowhere(tmp_path))
    assert remote.training.images[:].equal(local.training.images[:])
    assert remote.holdout.images[:].equal(local.holdout.images[:])
    assert remote.training.labels.equal(local.training.labels)
    assert remote.class_names == ("a", "b", "c")
    assert remote.fingerprint == local.fingerprint
    whole = load_data(url, holdout=0)
    assert np.array_equal(whole.training.images[:].numpy(), [pixels(seed).transpose(2, 0, 1) for seed in range(160)])
    assert whole.training.labels.tolist() == [2 - seed % 3 for seed in range(160)]


def test_names_headers_and_digests_are_those_of_the_same_shards_on_disk(url, folder):
    remote, local = open_source(url).items, open_source(folder).items
    for index in (0, 49, 50, 159):
        assert remote.name(index) == local.name(index)
        assert remote.header(index) == local.header(index)
        for head in (None, 2**16, 100):
            assert remote.digest(index, head) == local.digest(index, head)


def test_the_index_is_one_request_a_shard_and_pixels_are_few_more(url, server):
    open_source(url)
    assert sorted(server.shards()) == sorted((f"shard-{n:03}.tar", 0, length(server, n)) for n in range(4))
    assert server.probes == 4
    server.forget()
    load_data(url)
    assert len(server.shards()) <= 3 * 16 + 3  # of 160: what is not known to be in order yet, and a block a shard
    server.forget()
    load_data(url, fit="pad", size=9)
    assert len(server.shards()) <= 3 * 16 + 3


def length(server, number):
    return (server.root / f"shard-{number:03}.tar").stat().st_size


def test_the_second_start_downloads_no_shard(url, server):
    first = load_data(url)
    server.forget()
    second = load_data(url)
    assert server.shards() == []
    assert server.probes == 4
    assert (second.fingerprint, second.report) == (first.fingerprint, first.report)


def test_a_changed_shard_is_downloaded_again(url, server):
    open_source(url)
    server.forget()
    server.etags["shard-002.tar"] = '"other"'
    open_source(url)
    assert len(server.shards()) == 4


def test_without_etags_the_length_tells(url, server):
    server.etags = {f"shard-{number:03}.tar": None for number in range(4)}
    load_data(url)
    server.forget()
    load_data(url)
    assert server.shards() == []


def test_class_names_beside_the_shards(url, server, folder):
    assert load_data(url).class_names == ("a", "b", "c")
    (folder / "classes.txt").write_text("c\nb\na\n")
    data = load_data(url, holdout=0)
    assert data.class_names == ("c", "b", "a")
    assert data.training.labels[:3].tolist() == [0, 1, 2]
    (folder / "classes.txt").write_text("a\nb\n")
    with pytest.raises(SnowmeltError, match=r"has the label c, but http.*/classes\.txt names 2 classes"):
        load_data(url)
    server.fail = lambda path, first: 403 if path == "classes.txt" else None
    assert load_data(url).class_names == ("a", "b", "c")
    server.fail = lambda path, first: 500 if path == "classes.txt" else None
    with pytest.raises(SnowmeltError, match=r"classes\.txt cannot be fetched: HTTP 500"):
        load_data(url)


def test_labels_are_ignored_if_asked_and_other_ways_refused_at_once(url, server):
    with pytest.raises(SnowmeltError, match="--labels prefix needs picture files"):
        open_source(url, "prefix")
    assert (server.asked, server.probes) == ([], 0)
    assert load_data(url).training.labels is not None
    assert load_data(url, labels="none").training.labels is None
    assert open_source(url, "none").skipped == {".json": 160}


def test_one_shard_and_a_space_in_its_name_and_a_query(server, folder):
    shard(folder / "my shard.tar", [("7.png", png(7)), ("8.png", png(8))])
    source = open_source(f"{server.address}/my shard.tar?key=a/b")
    assert [source.items.name(index) for index in range(2)] == ["my shard.tar/7.png", "my shard.tar/8.png"]
    assert run_name(f"{server.address}/my shard.tar?key=a/b") == "my-shard"


def test_an_address_is_no_path(url):
    assert settled_name(url) == url
    assert run_name(url) == "shard"


def test_training_on_pictures_read_as_they_are_used_is_the_same_run(url, server, folder, live, tmp_path, minimal):
    def losses(data, name):
        out = api.train(data, out=tmp_path / name, preset=minimal, steps=6, log_every=1, size=8)
        return [row["loss"] for row in read_metrics(out / "metrics.jsonl") if "loss" in row], out

    (remote, run), (local, _) = losses(url, "remote"), losses(folder, "local")
    assert remote == local
    server.forget()
    api.resume(run, steps=8)
    assert 0 < len(server.shards()) < 160


def test_pictures_from_all_over_are_fetched_alone(url, server, live, folder):
    images = load_data(url, holdout=0).training.images
    assert not images.resident
    server.forget()
    taken = images[torch.tensor([3, 150, 77, 12])]
    assert np.array_equal(taken.numpy(), [pixels(seed).transpose(2, 0, 1) for seed in (3, 150, 77, 12)])
    assert len(server.shards()) == 4
    assert server.sent < 4 * 400


def test_reading_in_order_fetches_blocks_and_keeps_few(server, url, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 8192)
    monkeypatch.setattr(blocks, "MOST_BLOCKS", 3)
    items = open_source(url).items
    server.forget()
    for index in range(len(items)):
        with items.open(index) as file:
            assert file.read() == png(index)
        assert len(items._blocks._kept) <= 3
    # Two members of half a kilobyte and their headers are a sample: four or five samples a block.
    assert 160 / 5 <= len(server.shards()) <= 160 / 2
    assert all(end - first <= 8192 + 512 for _, first, end in server.shards())


def test_a_picture_larger_than_a_block_is_fetched_alone(server, folder, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 1024)
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(stream, "PNG")
    shard(folder / "big.tar", [("0.png", png(0)), ("1.png", stream.getvalue()), ("2.png", png(2))])
    items = open_source(f"{server.address}/big.tar").items
    server.forget()
    assert [items.open(index).read() for index in range(3)] == [png(0), stream.getvalue(), png(2)]
    assert ("big.tar", 512 + 512 + 512, 512 + 512 + 512 + len(stream.getvalue())) in server.asked


def test_a_block_does_not_reach_over_a_large_stretch(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 100)
    fetched = []

    def fetch(file, first, end):
        fetched.append((file, first, end))
        return bytes(end - first)

    reader = blocks.Blocks(np.zeros(4, int), np.array([0, 20, 40, 300]), np.array([10, 10, 101, 10]), fetch)
    assert [len(reader.read(index)) for index in range(4)] == [10, 10, 101, 10]
    assert fetched == [(0, 0, 10), (0, 0, 30), (0, 40, 141), (0, 300, 310)]


def test_one_block_is_fetched_once_for_all_threads():
    fetched, gate = [], threading.Event()

    def fetch(file, first, end):
        fetched.append((file, first, end))
        gate.wait(5)
        return bytes(range(first, end))

    count = 20
    reader = blocks.Blocks(np.zeros(count, int), np.arange(count) * 5, np.full(count, 3), fetch)
    gate.set()
    reader.read(0)
    gate.clear()
    got = {}
    threads = [threading.Thread(target=lambda n=n: got.update({n: reader.read(n)})) for n in range(1, count)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert got == {n: bytes(range(5 * n, 5 * n + 3)) for n in range(1, count)}
    assert fetched.count((0, 0, 98)) == 1


def test_connections_are_used_again(url, server):
    items = open_source(url).items
    before = server.connections
    for index in range(0, 160, 2):
        items.open(index)
    assert server.connections - before <= 1


@pytest.mark.parametrize("trouble", [503, 429, "close", "cut"])
def test_a_failure_that_passes_is_not_noticed(url, server, folder, trouble, tmp_path):
    failed, lock = Counter(), threading.Lock()

    def twice(*asked):
        with lock:
            failed[asked] += 1
            return trouble if failed[asked] <= 2 else None

    server.fail = twice
    remote = load_data(url, holdout=0)
    assert len(failed) > 4 + 3
    assert remote.fingerprint == load_data(folder, holdout=0, cache=nowhere(tmp_path)).fingerprint


def test_a_broken_download_goes_on_where_it_broke(server, folder):
    noise = [(f"{n}.png", np.random.default_rng(n).bytes(300_000)) for n in range(20)]
    shard(folder / "big.tar", noise)
    cut = iter([None, "cut", "cut"])
    server.fail = lambda path, first: next(cut, None)
    open_source(f"{server.address}/big.tar")
    starts = [first for _, first, _ in server.shards()]
    assert starts[0] == 0
    assert len(starts) == 3
    assert starts[0] < starts[1] < starts[2]


def test_a_server_that_is_gone_is_named(server, url):
    server.fail = lambda path, first: 503
    with pytest.raises(SnowmeltError, match=r"shard-00.\.tar cannot be fetched: HTTP 503.*\n.*run the command again"):
        open_source(url)
    with pytest.raises(SnowmeltError, match=r"http://127\.0\.0\.1:9/a\.tar cannot be fetched: Connection refused"):
        open_source("http://127.0.0.1:9/a.tar")


def test_one_picture_that_fails_is_unreadable_and_many_in_a_row_are_the_end(server, url):
    items = open_source(url).items
    server.fail = lambda path, first: 503
    for index in range(0, 30, 2):
        with pytest.raises(UnreadableError, match="HTTP 503"):
            items.open(index)
    with pytest.raises(SnowmeltError, match=r"shard-000\.tar cannot be fetched: HTTP 503"):
        items.open(30)
    server.fail = lambda path, first: None
    assert items.open(0).read() == png(0)
    server.fail = lambda path, first: 503
    with pytest.raises(UnreadableError, match="HTTP 503"):
        items.open(0)


def test_a_server_without_ranges_is_refused_before_anything_is_downloaded(server, url):
    server.ranges = False
    with pytest.raises(SnowmeltError, match=r"shard-00.\.tar does not send parts.*\n.*download the shards"):
        open_source(url)


def test_a_missing_shard_is_named(server):
    with pytest.raises(SnowmeltError, match=r"shard-004\.tar cannot be fetched: HTTP 404.*\n.*numbers in the braces"):
        open_source(f"{server.address}/shard-{{000..004}}.tar")
    assert server.shards() == [("shard-004.tar", 0, 0)]


def test_a_truncated_shard_is_named(server, url, folder):
    whole = (folder / "shard-002.tar").read_bytes()
    (folder / "shard-002.tar").write_bytes(whole[:1700])
    with pytest.raises(SnowmeltError, match=r"shard-002\.tar cannot be read as a tar file: unexpected end"):
        open_source(url)


@pytest.mark.parametrize("what", ["etag", "length"])
def test_a_shard_that_changes_later_is_an_error_and_no_wrong_bytes(server, url, live, folder, what):
    images = load_data(url, holdout=0).training.images
    if what == "etag":
        server.etags["shard-003.tar"] = '"other"'
    else:
        with (folder / "shard-003.tar").open("ab") as file:
            file.write(bytes(512))
    images[0:10]
    with pytest.raises(SnowmeltError, match=r"shard-003\.tar has changed since.*\n.*Put it back"):
        images[150:155]


def test_an_address_of_something_else_is_refused(server):
    for address in ("http:///a.tar", f"{server.address}/a.zip", f"{server.address}/", "http://host:port/a.tar"):
        with pytest.raises(SnowmeltError, match="is no address of WebDataset shards"):
            open_source(address)
    with pytest.raises(SnowmeltError, match="first number in the braces is above the last"):
        open_source(f"{server.address}/a-{{3..2}}.tar")


def test_redirections_are_followed_and_remembered_until_they_fail(server, url, folder, tmp_path):
    (folder / "there").mkdir()
    (folder / "shard-000.tar").rename(folder / "there" / "signed.tar")
    server.moved = {"shard-000.tar": "/there/signed.tar"}
    items = open_source(f"{server.address}/shard-000.tar").items
    server.forget()
    assert items.open(9).read() == png(9)
    assert [path for path, _, _ in server.asked] == ["there/signed.tar"]
    (folder / "there" / "signed.tar").rename(folder / "there" / "again.tar")
    server.moved = {"shard-000.tar": "there/again.tar"}
    assert items.open(20).read() == png(20)
    server.moved["there/again.tar"] = "/shard-000.tar"
    with pytest.raises(SnowmeltError, match="redirected more than 5 times"):
        open_source(f"{server.address}/shard-000.tar")


def test_a_proxy_is_asked_for_whole_addresses(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.delenv("no_proxy", raising=False)
    assert len(open_source("http://nowhere.invalid/shard-000.tar")) == 50
    assert server.targets == {"http://nowhere.invalid/shard-000.tar", "http://nowhere.invalid/classes.txt"}


def test_unreadable_pictures_are_named(server, folder):
    members = [(f"{seed:02}.png", png(seed)[: 30 if seed == 7 else None]) for seed in range(40)]
    shard(folder / "broken.tar", members)
    for _ in range(2):
        ((name, why),) = inspect(f"{server.address}/broken.tar").report.unreadable
        assert name == "broken.tar/07.png"
        assert why


def test_members_too_large_to_be_pictures_are_passed_over(server, folder, monkeypatch):
    monkeypatch.setattr("snowmelt.data.sources.archive.MAX_MEMBER", 2000)
    shard(folder / "large.tar", [("0.png", bytes(3000)), ("1.png", png(1))])
    items = open_source(f"{server.address}/large.tar").items
    for ask in (items.header, items.digest, items.open):
        with pytest.raises(UnreadableError, match="3,000 bytes"):
            ask(0)
    assert items.open(1).read() == png(1)


def test_shards_are_downloaded_several_at_once(server, url):
    server.pause = 0.2
    together, most, lock = [0], [0], threading.Lock()
    original = url_index._read

    def counting(*asked):
        with lock:
            together[0] += 1
            most[0] = max(most[0], together[0])
        try:
            return original(*asked)
        finally:
            with lock:
                together[0] -= 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(url_index, "_read", counting)
        open_source(url)
    assert most[0] == 4


def test_an_error_in_one_shard_ends_the_others(server, folder):
    shard(folder / "part-0.tar", [("0.png", png(0)), ("0.json", b"{")])
    shard(folder / "part-1.tar", [(f"{n}.png", np.random.default_rng(n).bytes(300_000)) for n in range(100)])
    with pytest.raises(SnowmeltError, match=r"part-0\.tar: 0\.json cannot be read"):
        open_source(f"{server.address}/part-{{0..1}}.tar")
    assert server.sent < 100 * 300_000
    assert open_source(f"{server.address}/part-{{0..1}}.tar", "none").skipped == {".json": 1}


def test_progress_is_told(server, url, monkeypatch, capsys):
    monkeypatch.setattr(url_index, "TOLD", 0)
    open_source(url)
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == f"Indexing {url}: 4 of 4 shards, 160 images"


def test_the_index_takes_little_memory(server, folder):
    members = [(f"{seed:06}.png", png(seed % 10)) for seed in range(5000)]
    shard(folder / "many.tar", members)
    items = open_source(f"{server.address}/many.tar").items
    arrays = items._index.to_arrays() | items._seen.to_arrays()
    assert sum(array.nbytes for array in arrays.values()) < 5000 * 90
    assert len(items._seen.headers.table) == 1


def test_the_index_is_made_by_one_of_several_processes(server, url, tmp_path):
    import subprocess
    import sys

    server.pause = 0.3
    script = "import sys; from snowmelt.data.sources import open_source; print(len(open_source(sys.argv[1])))"
    runs = [subprocess.Popen([sys.executable, "-c", script, url], stdout=subprocess.PIPE) for _ in range(3)]
    assert [run.communicate(timeout=60)[0] for run in runs] == [b"160\n"] * 3
    assert len(server.shards()) == 4


def test_more_threads_than_cores_wait_for_the_network(url, server, live, monkeypatch):
    monkeypatch.setattr("snowmelt.data.threads._cores", lambda: 1)
    images = load_data(url, holdout=0).training.images
    server.pause, server.most_together = 0.3, 0
    images[torch.arange(0, 160, 10)]
    assert server.most_together > 4
