"""MNIST, CIFAR-10 and how their files are had: stand-ins of a few pictures, served from the disk."""

import hashlib
import io
import re
import tarfile

import numpy as np
import pytest
from idx_files import write_idx_files

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.pipeline import load_data
from snowmelt.data.sources import cifar10, fashion_mnist, mnist, open_source
from snowmelt.data.sources.download import Published, fetched
from snowmelt.image.codec import UINT8


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where downloads are kept; no name of a host resolves, as tests touch no network."""
    monkeypatch.setenv("SNOWMELT_DATA", str(tmp_path / "kept"))
    for module in (mnist, fashion_mnist):
        monkeypatch.setattr(module, "ADDRESS", "http://nowhere.invalid/")
    monkeypatch.setattr(
        cifar10, "ARCHIVE", Published("cifar10", "cifar-10-binary.tar.gz", "http://nowhere.invalid/", "0")
    )
    return tmp_path / "kept"


def test_mnist_with_its_test_split(folder):
    pixels = write_idx_files(folder / "mnist")
    data = load_data("mnist")
    assert np.array_equal(data.training.images[:].numpy()[:, 0], pixels[:40])
    assert np.array_equal(data.holdout.images[:].numpy()[:, 0], pixels[40:])
    assert data.training.labels.tolist() == [*range(10)] * 4
    assert data.holdout.labels.tolist() == [*range(10)]
    assert data.class_names == tuple("0123456789")
    assert data.value_range == UINT8
    assert load_data("mnist", labels="none").training.labels is None


def test_fashion_mnist_where_debian_s_package_is_not(folder, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "FOLDER", folder / "nowhere")
    monkeypatch.delenv("SNOWMELT_FASHION_MNIST", raising=False)
    with pytest.raises(SnowmeltError, match=r"fashion-mnist is not on this machine.*\n.*Put .*apt install"):
        open_source("fashion-mnist")
    write_idx_files(folder / "fashion-mnist")
    assert len(open_source("fashion-mnist")) == 40


def record(label, seed):
    return bytes([label]) + np.random.default_rng(seed).integers(0, 256, 3072, np.uint8).tobytes()


def small_cifar(folder, files):
    folder.mkdir(parents=True)
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))


def batches():
    """Two pictures in each of the six files, the test batch first, as nothing promises an order."""
    names = ["test_batch.bin", *(f"data_batch_{number}.bin" for number in (3, 1, 2, 5, 4))]
    return {
        **{name: record(int(name[-5]) if name[-5].isdigit() else 9, name[-5].encode()[0]) * 2 for name in names},
        "readme.html": b"x",
    }


def test_cifar10_with_its_test_split(folder):
    small_cifar(folder / "cifar10", batches())
    data = load_data("cifar10")
    assert data.training.labels.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert data.holdout.labels.tolist() == [9, 9]
    assert [data.class_names[label] for label in (0, 5, 9)] == ["airplane", "dog", "truck"]
    planes = np.frombuffer(record(3, ord("3"))[1:], np.uint8).reshape(3, 32, 32)
    assert np.array_equal(data.training.images[4].numpy(), planes)
    assert data.training.images.shape == (10, 3, 32, 32)


@pytest.mark.parametrize("damage", [{"data_batch_4.bin": b"short"}, {"data_batch_4.bin": b""}])
def test_an_incomplete_cifar10_is_named(folder, damage):
    small_cifar(folder / "cifar10", {**batches(), **damage})
    with pytest.raises(SnowmeltError, match=r"cifar-10-binary\.tar\.gz has no data_batch_4\.bin, or an incomplete"):
        open_source("cifar10")


@pytest.mark.parametrize(
    ("name", "file"), [("mnist", "t10k-images-idx3-ubyte.gz"), ("cifar10", "cifar-10-binary.tar.gz")]
)
def test_without_a_network_it_says_which_file_to_put_where(folder, name, file):
    match = (
        rf"{name} is not on this machine, and .*{file} cannot be fetched.*\n.*Put {file} \(MD5 .* into {folder}/{name}"
    )
    with pytest.raises(SnowmeltError, match=match):
        open_source(name)
    assert [*folder.rglob("*.*")] == []  # nothing half-done


def test_a_download_is_kept_and_used_again(folder, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.gz").write_bytes(b"content")
    file = Published("set", "a.gz", f"{(tmp_path / 'there').as_uri()}/", hashlib.md5(b"content").hexdigest())
    assert fetched(file).read_bytes() == b"content"
    assert fetched(file) == folder / "set" / "a.gz"
    assert capsys.readouterr().err.count("Downloading") == 1


def test_a_download_of_something_else_is_refused(folder, tmp_path):
    (tmp_path / "a.gz").write_bytes(b"<html>log in to the hotel's network</html>")
    file = Published("set", "a.gz", f"{tmp_path.as_uri()}/", hashlib.md5(b"content").hexdigest())
    with pytest.raises(SnowmeltError, match=r"is not a\.gz: its MD5 is .*, not " + re.escape(file.md5)):
        fetched(file)
    assert not file.path.exists()


def test_without_the_variable_they_are_kept_in_the_user_s_cache(monkeypatch):
    monkeypatch.delenv("SNOWMELT_DATA")
    monkeypatch.setenv("SNOWMELT_CACHE", "/home/somebody/cache")
    path = Published("set", "a.gz", "", "").path
    assert path.as_posix() == "/home/somebody/cache/datasets/set/a.gz"
