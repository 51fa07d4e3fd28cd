"""Fashion-MNIST: 60,000 + 10,000 articles of clothing, 28 x 28 grey, from Debian's package or a download."""

from __future__ import annotations

import os
from pathlib import Path

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.items import Source
from snowmelt.data.sources.download import Published, fetched
from snowmelt.data.sources.idx import FILES, idx_source
from snowmelt.data.sources.kind import SOURCES, Kind

FOLDER = Path("/usr/share/datasets/fashion-mnist")
VARIABLE = "SNOWMELT_FASHION_MNIST"
ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
ELSEWHERE = f"Run `apt install dataset-fashion-mnist`, or set {VARIABLE}=FOLDER to a folder with {', '.join(FILES)}."
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def find(name: str, labels: str) -> Source:
    """The training pictures with the official test split; raises SnowmeltError where a file is missing or damaged."""
    return idx_source(name, labels, _place, CLASS_NAMES)


def _place(file: str) -> Path:
    """Where a file lies: in the folder that is set, in Debian's, or where downloads are kept."""
    chosen = os.environ.get(VARIABLE)
    if not chosen and not FOLDER.is_dir():
        return fetched(Published("fashion-mnist", file, ADDRESS, MD5[file]), ELSEWHERE)
    path = Path(chosen or FOLDER) / file
    if not path.is_file():
        raise SnowmeltError(f"fashion-mnist is not installed: there is no {path}.", ELSEWHERE)
    return path


SOURCES.register(
    "fashion-mnist",
    "60,000 articles of clothing, 28 x 28 grey, 10 classes, with 10,000 for testing (Debian: dataset-fashion-mnist)",
    "Xiao, Rasul & Vollgraf 2017",
)(Kind(find))
