"""Stretches of remote files, fetched many together where they are asked for in order, and alone where they are not."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

BLOCK = 2**21  # bytes from the first start of a stretch to the last
MOST_BLOCKS = 32  # that are kept: 64 MB
RECENT = 64  # stretches that were asked for last, by which to tell that one goes through them in order

Fetch = Callable[[int, int, int], bytes]  # (file, first byte, end) -> bytes
Key = tuple[int, int]  # a file, and which of its blocks


class Blocks:
    """Stretches by number: `files` int [N], ascending, `offsets` and `sizes` int64 [N]; called from several threads.

    A block is all stretches that begin in the same 2 MB of a file, from the start of the first to the end of the
    last. It is fetched where the stretch before was asked for just now; a stretch of more than a block never is.
    """

    def __init__(
        self, files: NDArray[np.integer], offsets: NDArray[np.int64], sizes: NDArray[np.int64], fetch: Fetch
    ) -> None:
        self._files, self._offsets, self._sizes, self._fetch = files, offsets, sizes, fetch
        self._kept: OrderedDict[Key, Future[tuple[int, bytes]]] = OrderedDict()
        self._recent: deque[int] = deque(maxlen=RECENT)
        self._lock = threading.Lock()

    def read(self, index: int) -> bytes:
        """The bytes of a stretch; raises what `fetch` does."""
        file, offset, size = int(self._files[index]), int(self._offsets[index]), int(self._sizes[index])
        key, mine = (file, offset // BLOCK), False
        with self._lock:
            in_order = index - 1 in self._recent and size <= BLOCK
            self._recent.append(index)
            block = self._kept.get(key) if size <= BLOCK else None
            if block is not None:
                self._kept.move_to_end(key)
            elif in_order:
                mine, block = True, Future()
                self._kept[key] = block
                if len(self._kept) > MOST_BLOCKS:
                    self._kept.popitem(last=False)
        if block is None:
            return self._fetch(file, offset, offset + size)
        if mine:
            self._fill(key, block)
        first, content = block.result()
        return content[offset - first : offset - first + size]

    def _fill(self, key: Key, block: Future[tuple[int, bytes]]) -> None:
        """Fetch a block for all who wait for it; what fails is tried anew by who asks next."""
        try:
            first, end = self._extent(key)
            block.set_result((first, self._fetch(key[0], first, end)))
        except BaseException as error:
            with self._lock:
                if self._kept.get(key) is block:
                    del self._kept[key]
            block.set_exception(error)

    def _extent(self, key: Key) -> tuple[int, int]:
        """The first byte of a block and its end."""
        file, number = key
        here = slice(*np.searchsorted(self._files, [file, file + 1]))
        offsets, sizes = self._offsets[here], self._sizes[here]
        inside = (offsets // BLOCK == number) & (sizes <= BLOCK)
        return int(offsets[inside].min()), int((offsets + sizes)[inside].max())
