"""MNIST: 60,000 + 10,000 handwritten digits, 28 x 28 grey, downloaded once (11 MB)."""

from __future__ import annotations

from snowmelt.data.items import Source
from snowmelt.data.sources.download import Published, fetched
from snowmelt.data.sources.idx import idx_source
from snowmelt.data.sources.kind import SOURCES, Kind

ADDRESS = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}


def find(name: str, labels: str) -> Source:
    """The training pictures with the official test split; raises SnowmeltError where a file cannot be had."""
    return idx_source(name, labels, lambda file: fetched(Published("mnist", file, ADDRESS, MD5[file])), "0123456789")


SOURCES.register(
    "mnist",
    "60,000 handwritten digits, 28 x 28 grey, 10 classes, with 10,000 for testing (downloaded, 11 MB)",
    "LeCun, Bottou, Bengio & Haffner 1998",
)(Kind(find))
