import zlib

import numpy as np
import pytest
from PIL import Image

CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}


@pytest.fixture
def picture():
    """A function that writes a picture of random pixels (another for each seed) and returns its path."""

    def write(path, mode="RGB", size=(20, 16), seed=None, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(zlib.crc32(path.name.encode()) if seed is None else seed)
        height, width = size[1], size[0]
        if mode == "I;16":
            image = Image.fromarray(random.integers(0, 65536, (height, width), np.uint16))
        elif mode in ("1", "P"):
            image = Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)
        else:
            shape = (height, width, CHANNELS[mode])
            pixels = random.integers(0, 256, shape, np.uint8).squeeze()
            image = Image.frombytes(mode, size, pixels.tobytes())
        image.save(path, **options)
        return path

    return write
