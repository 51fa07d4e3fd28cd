"""Files damaged at random: no crash, no hang, bounded memory, each counted."""

import io
import resource
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from snowmelt.data.check import inspect

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


def good(random):
    """The bytes of a small picture of a random format and mode, and its ending."""
    kind = FORMATS[random.integers(len(FORMATS))]
    mode = "RGB" if kind in ("JPEG", "WEBP") else ("RGB", "L", "P")[random.integers(3)]
    size = random.integers(1, 60, 2).tolist()
    image = Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).convert(mode)
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue(), kind.lower()


def huge_header(random):
    """A PNG of a few bytes that claims 2 GB of pixels and more."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    side = int(random.integers(30_000, 2**31 - 1))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b""), "png"


def bomb(random):
    """A PNG whose 11,000 x 11,000 pixels of one colour are a few kilobytes."""
    stream = io.BytesIO()
    Image.new("1", (11_000, 11_000)).save(stream, "PNG")
    return stream.getvalue(), "png"


def damaged(random):
    """Bytes and an ending, damaged in one of the ways files are."""
    content, kind = good(random)
    way = random.integers(6)
    if way == 0:
        content = content[: random.integers(len(content))]
    elif way == 1:
        changed = bytearray(content)
        for at in random.integers(0, len(changed), random.integers(1, 40)):
            changed[at] ^= 1 << int(random.integers(8))
        content = bytes(changed)
    elif way == 2:
        kind = FORMATS[random.integers(len(FORMATS))].lower()
    elif way == 3:
        content = b""
    elif way == 4:
        content = random.bytes(int(random.integers(1, 2000)))
    else:
        content, kind = huge_header(random)
    return content, kind


def check_damaged(folder, count):
    random = np.random.default_rng(0)
    content, _ = bomb(random)
    (folder / "bomb.png").write_bytes(content)
    for number in range(count):
        content, kind = damaged(random)
        (folder / f"{number:05}.{kind}").write_bytes(content)
    for number in range(20):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"good{number}.png")
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    found = inspect(folder, size=32).report
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert found.found == count + 21
    assert found.readable + len(found.unreadable) == found.found
    assert found.readable >= 20
    assert len(found.unreadable) > count / 2
    assert all(reason for _, reason in found.unreadable)
    assert grown < 1500  # MiB; two threads decode at a time, and the largest picture that is read has 2^27 pixels
    return time.monotonic() - start


def test_damaged_files_are_counted(tmp_path):
    check_damaged(tmp_path, 400)


@pytest.mark.slow
def test_five_thousand_damaged_files_are_counted(tmp_path):
    print(f"{check_damaged(tmp_path, 5000):.1f} s")
