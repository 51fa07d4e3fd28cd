"""The pixels of a source: out of the cache, decoded into it, held in memory, or left to be decoded when used."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import read_json, readable_bytes, write_json
from snowmelt.data.arrays import Rows
from snowmelt.data.cache import ABOUT, Arrays, Cache
from snowmelt.data.decode import decoders
from snowmelt.data.failures import Failures, for_each_readable
from snowmelt.data.items import DIGEST, HEAD, Items, Pixels, Target, UnreadableError, digest_of
from snowmelt.data.memory import fits_memory
from snowmelt.data.scan import decode

FORMAT = 2  # of what is kept, and of how it is decoded: another number makes another entry
PIXELS, DIGESTS = "pixels.npy", "digests.npy"
SAMPLED = 256  # pictures whose extremes stand for those of all, where not all are decoded
BY_PIXELS, BY_FILES = "pixels", "files"

Digests = NDArray[np.uint8]
Done = Callable[[int], None]


@dataclass(frozen=True)
class Decoded:
    """What is known of a source's pixels once all were decoded, or looked at.

    pixels    [N, C, H, W] in memory or mapped from a file; None where they are to be decoded each time
    digests   [N, 16]: equal pictures have equal ones
    broken    why some cannot be read, by number
    low, high the least and the greatest value; infinite for uint8
    passing   whether one of the broken may be read at another time
    note      a sentence for the user, or None
    known_by  what digests, broken and extremes are of: all pixels, or what is cheap to read of the files
    """

    pixels: Pixels | None
    digests: Digests
    broken: Mapping[int, str]
    low: float
    high: float
    passing: bool = False
    note: str | None = None
    known_by: str = BY_PIXELS


def decoded(
    items: Items,
    target: Target,
    broken: Mapping[int, str],
    name: str,
    cache: Cache,
    done: Done,
    hashed: Done,
    known_by: str | None = None,
) -> Decoded:
    """Decode all items that are not in `broken`, unless that has been done before or there is no room for them.

    name      of the source, for people
    done      is told of decoded items, `hashed` of items whose bytes were read to tell whether they are in the cache
    known_by  BY_PIXELS or BY_FILES, as at an earlier time: the room in cache and memory, which may be another by now,
              then decides nothing but the speed; None leaves it to the room
    """
    found = _decoded(items, target, broken, name, cache, done, hashed)
    if known_by in (None, found.known_by):
        return found
    if known_by == BY_PIXELS:
        seen = _known_by_pixels(items, target, {**broken, **found.broken}, cache, done)
        return replace(seen, note=found.note)
    seen = _known_by_files(items, target, broken, cache, done)
    # What has turned out to be broken counted as whole then, and another took its place whenever it was used.
    whole = found.broken.keys() <= seen.broken.keys()
    return replace(seen, pixels=found.pixels if whole else None)


def _decoded(
    items: Items, target: Target, broken: Mapping[int, str], name: str, cache: Cache, done: Done, hashed: Done
) -> Decoded:
    """Where there is room: the cache, memory, or nowhere."""
    size = len(items) * target.channels * target.height * target.width * np.dtype(target.dtype).itemsize
    asked = not cache.limit  # to keep nothing
    trouble = None if asked or not items.encoded else f"More than the cache may hold ({readable_bytes(cache.limit)})"
    if items.encoded and size <= cache.limit:
        try:
            return _cached(items, target, broken, name, size, cache, done, hashed)
        except (OSError, SnowmeltError) as error:
            trouble = f"The cache cannot be used ({str(getattr(error, 'message', error)).rstrip('.')})"
    hashed(len(items))
    own = items.as_they_are(target) if isinstance(items, Rows) else None
    if own is not None or fits_memory(size):
        pixels = np.empty((len(items), *_shape(target)), target.dtype) if own is None else own
        keep = pixels.__setitem__ if own is None else _nothing
        found = _Decoding(len(items), keep)
        failed = decode(items, target, broken, found.keep, done)
        note = f"{trouble}: the images are in memory, and are decoded again at the next start" if trouble else None
        return found.result(pixels, failed, note)
    seen = _known_by_files(items, target, broken, cache, done)
    why = trouble or "More than the cache may hold"
    note = f"{why}: decoded, the images would take {readable_bytes(size)}, so they are decoded each time they are used"
    return replace(seen, note=note)


def _nothing(index: int, pixels: Pixels) -> None:
    pass


class _Decoding:
    """Pixels on their way: each is kept by `keep`, its digest and its extremes here."""

    def __init__(self, count: int, keep: Callable[[int, Pixels], None]) -> None:
        self._keep = keep
        self._digests = np.zeros((count, DIGEST), np.uint8)
        self._low, self._high = np.full(count, np.inf), np.full(count, -np.inf)

    def keep(self, index: int, pixels: Pixels) -> None:
        self._keep(index, pixels)
        self._digests[index] = np.frombuffer(digest_of(np.ascontiguousarray(pixels).data.cast("B")), np.uint8)
        if pixels.dtype != np.uint8:  # the range of bytes is known
            self._low[index], self._high[index] = pixels.min(), pixels.max()

    def result(self, pixels: Pixels | None, failed: Failures, note: str | None = None) -> Decoded:
        return Decoded(pixels, self._digests, failed.reasons, *self.extremes(), failed.passing, note)

    def extremes(self) -> tuple[float, float]:
        return float(self._low.min()), float(self._high.max())


def _cached(
    items: Items,
    target: Target,
    broken: Mapping[int, str],
    name: str,
    size: int,
    cache: Cache,
    done: Done,
    hashed: Done,
) -> Decoded:
    """Out of the cache, and first into it where it is not there; raises OSError where nothing can be written."""
    stamp = items.stamp()
    # What was broken before may be whole now.
    memo = None if stamp is None else f"pixels-{_key(target, [stamp, json.dumps(sorted(broken.items())).encode()])}"
    key = None if memo is None else cache.recall(memo)
    if key is None:
        contents, failed = _contents(items, broken, hashed)
        key = _key(target, contents)
        if memo is not None and not failed.passing:
            cache.remember(memo, key)
    else:
        hashed(len(items))
    found = _open(cache, key, items, target)
    if found is not None and not found.passing:
        done(len(items))
        return found
    again = found is not None  # as it lacks what may be readable now
    with cache.alone(key, lambda: done(0)):
        if again or _open(cache, key, items, target) is None:
            cache.discard(key)  # damaged, or to be made again, if it is there
            with cache.making(key, size) as folder:
                _fill(folder, items, target, broken, name, done)
        else:
            done(len(items))
    found = _open(cache, key, items, target)
    if found is None:
        raise SnowmeltError(f"what was written to {cache.root} is not there any more")
    return found


def _contents(items: Items, broken: Mapping[int, str], hashed: Done) -> tuple[list[bytes], Failures]:
    """Every item's digest, or why it has none; and what had to be read and could not."""
    found = [b""] * len(items)

    def look(index: int) -> None:
        found[index] = broken[index].encode() if index in broken else items.digest(index)

    failed = for_each_readable(look, len(items), hashed)
    for index, why in failed.reasons.items():
        found[index] = why.encode()
    return found, failed


def _key(target: Target, parts: list[bytes]) -> str:
    """What depends on all that the pixels depend on."""
    hashing = blake2b(f"{FORMAT} {decoders()} {asdict(target)}".encode(), digest_size=DIGEST)
    for part in parts:
        hashing.update(b"%d " % len(part) + part)
    return hashing.hexdigest()


def _fill(folder: Path, items: Items, target: Target, broken: Mapping[int, str], name: str, done: Done) -> None:
    """Decode everything into an entry's folder."""
    shape = (len(items), *_shape(target))
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(target.dtype)), "fortran_order": False, "shape": shape}
    lock = threading.Lock()
    with (folder / PIXELS).open("w+b") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start, stride = file.tell(), int(np.prod(shape[1:])) * np.dtype(target.dtype).itemsize
        file.truncate(start + stride * len(items))

        # Written, not mapped: on a full disk to write is an error, and to touch a mapped page is the end.
        def keep(index: int, pixels: Pixels) -> None:
            with lock:
                file.seek(start + index * stride)
                file.write(np.ascontiguousarray(pixels).data.cast("B"))

        found = _Decoding(len(items), keep)
        result = found.result(None, decode(items, target, broken, found.keep, done))
    np.save(folder / DIGESTS, result.digests)
    about = {
        "format": FORMAT,
        "name": str(Path(name).absolute()) if Path(name).exists() else name,
        "images": len(items),
        "target": asdict(target),
        "low": result.low if np.isfinite(result.low) else None,
        "high": result.high if np.isfinite(result.high) else None,
        "broken": sorted(result.broken.items()),
        "passing": result.passing,
    }
    write_json(folder / ABOUT, about)


def _open(cache: Cache, key: str, items: Items, target: Target) -> Decoded | None:
    """An entry, or None where there is none, or where it is not whole."""
    folder = cache.find(key)
    if folder is None:
        return None
    try:
        about = read_json(folder / ABOUT)
        # Mapped for this process alone: what it writes to them (nothing) stays in its memory.
        pixels = np.lib.format.open_memmap(folder / PIXELS, mode="c")
        digests = np.load(folder / DIGESTS)
        if pixels.shape != (len(items), *_shape(target)) or digests.shape != (len(items), DIGEST):
            return None
        low, high = (np.nan if about[end] is None else about[end] for end in ("low", "high"))
        broken = {int(index): why for index, why in about["broken"]}
        return Decoded(pixels, digests, broken, low, high, about["passing"])
    except (OSError, SnowmeltError, ValueError, KeyError, TypeError):
        return None


def _known_by_files(items: Items, target: Target, broken: Mapping[int, str], cache: Cache, done: Done) -> Decoded:
    """What tells equal pictures without decoding them, and the extremes of a few."""
    found = _remembered("heads", items, target, broken, cache, done, lambda count: _heads(items, broken, count))
    failed = {**broken, **_failed(found)}
    low, high = _extremes(items, target, failed)
    return Decoded(None, found["digests"], failed, low, high, bool(found["passing"]), known_by=BY_FILES)


def _known_by_pixels(items: Items, target: Target, broken: Mapping[int, str], cache: Cache, done: Done) -> Decoded:
    """The same of all pixels, which are decoded for it and not kept."""

    def make(count: Done) -> Arrays:
        found = _Decoding(len(items), _nothing)
        result = found.result(None, decode(items, target, broken, found.keep, count))
        return _found(result.digests, result.broken, result.passing) | {"extremes": np.array(found.extremes())}

    found = _remembered("pixels-known", items, target, broken, cache, done, make)
    low, high = found["extremes"].tolist()
    return Decoded(None, found["digests"], _failed(found), low, high, bool(found["passing"]))


def _remembered(
    what: str,
    items: Items,
    target: Target,
    broken: Mapping[int, str],
    cache: Cache,
    done: Done,
    make: Callable[[Done], Arrays],
) -> Arrays:
    """What was found out of all items at an earlier time, or is now."""
    stamp = items.stamp()
    told = 0

    def count(more: int) -> None:
        nonlocal told
        told += more
        done(more)

    without = digest_of(repr(sorted(broken)).encode())
    memo = None if stamp is None else f"{what}-{_key(target, [stamp, without])}"
    if memo is None:
        found = make(count)
    else:
        found = cache.arrays(memo, lambda: make(count), keep=lambda arrays: not arrays["passing"])
    done(len(items) - told)
    return found


def _heads(items: Items, broken: Mapping[int, str], done: Done) -> Arrays:
    """The digests [N, 16] of the pictures' first bytes, and why some have none."""
    digests = np.zeros((len(items), DIGEST), np.uint8)

    def look(index: int) -> None:
        if index not in broken:
            digests[index] = np.frombuffer(items.digest(index, HEAD), np.uint8)

    failed = for_each_readable(look, len(items), done)
    return _found(digests, failed.reasons, failed.passing)


def _found(digests: Digests, failed: Mapping[int, str], passing: bool) -> Arrays:
    """What was found out, as the cache remembers it."""
    reasons = json.dumps(sorted(failed.items()))
    return {"digests": digests, "failed": np.array(reasons), "passing": np.array(passing)}


def _failed(found: Arrays) -> dict[int, str]:
    """Why some could not be read, by number."""
    return {int(index): why for index, why in json.loads(str(found["failed"]))}


def _extremes(items: Items, target: Target, broken: dict[int, str]) -> tuple[float, float]:
    """The least and the greatest value of a few pictures; what turns out to be unreadable is added to `broken`."""
    if target.dtype == "uint8":
        return 0, 255
    found = _Decoding(len(items), _nothing)
    good = np.setdiff1d(np.arange(len(items)), list(broken))
    for index in good[np.linspace(0, len(good) - 1, min(SAMPLED, len(good))).astype(int)].tolist():
        try:
            found.keep(index, items.read(index, target))
        except UnreadableError as error:
            broken[index] = str(error)
    return found.extremes()


def _shape(target: Target) -> tuple[int, int, int]:
    return target.channels, target.height, target.width
