"""Features of texts on disk: a frozen text tower embeds each exact text once, for all runs that share the folder.

    CACHE/TOWER/CONTENT.npy     a segment: rows of (text_sha256, features in float16), never changed

TOWER is a fingerprint of the tower's weights and tokenizer. Segments are memory-mapped, written under another name and
renamed, so any number of processes may read and add; at worst two embed the same text, to the same end.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from schemas.hashes import sha256
from trainer.errors import TrainingError

SEGMENT_TEXTS = 8192
"""Texts embedded and made durable at a time."""

Digests = npt.NDArray[np.bytes_]
"""`[T, 32]` uint8: the sha256 of each text."""


class TextCache:
    """The features of one text tower. Rows are numbered as this object found them; `refresh` numbers them anew."""

    def __init__(self, folder: str | os.PathLike[str], *, tower: str, dim: int) -> None:
        """Open (or make) the part of `folder` for the tower of this fingerprint, whose features have width `dim`."""
        self._folder = Path(folder) / tower[:32]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._dtype = np.dtype([("digest", np.uint8, (32,)), ("features", np.float16, (dim,))])
        self.refresh()

    def refresh(self) -> None:
        """Look for segments again."""
        paths = sorted(self._folder.glob("*.npy"))
        self._segments: list[npt.NDArray[Any]] = [self._open(path) for path in paths]
        self._ends = np.cumsum([len(segment) for segment in self._segments], dtype=np.int64)
        digests = [np.ascontiguousarray(segment["digest"]) for segment in self._segments]
        self._digests = np.concatenate([np.zeros((0, 32), np.uint8), *digests])
        prefixes = _prefixes(self._digests)
        self._order = np.argsort(prefixes, kind="stable")
        self._sorted = prefixes[self._order]

    def _open(self, path: Path) -> npt.NDArray[Any]:
        """Map a segment into memory; torch keeps no file open for it, as numpy does: there may be thousands."""
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            start, size = file.tell(), os.fstat(file.fileno()).st_size
        if dtype != self._dtype or size != start + shape[0] * dtype.itemsize:
            raise TrainingError(
                f"{path}: a segment of {dtype}, {size} bytes, where whole rows of {self._dtype} belong; remove the file"
            )
        mapped: npt.NDArray[np.uint8] = torch.from_file(str(path), size=size, dtype=torch.uint8).numpy()
        return mapped[start:].view(self._dtype)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._digests)

    def rows(self, digests: Digests) -> npt.NDArray[np.int64]:
        """Return `[T]`: the row of each text, -1 for those not here."""
        if not len(self):
            return np.full(len(digests), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self._sorted, _prefixes(digests)), len(self) - 1)
        rows = self._order[at]
        found = (self._digests[rows] == digests).all(axis=1)
        return np.where(found, rows, -1)

    def features(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return `[T, D]` float32 features of `rows`."""
        found = np.empty((len(rows), self._dtype["features"].shape[0]), dtype=np.float32)
        owner = np.searchsorted(self._ends, rows, side="right")
        for segment in np.unique(owner):
            mine = owner == segment
            first = self._ends[segment - 1] if segment else 0
            found[mine] = self._segments[segment]["features"][rows[mine] - first]
        return found

    def add(self, digests: Digests, features: npt.NDArray[np.float32]) -> None:
        """Make rows durable; `refresh` shows them."""
        rows = np.empty(len(digests), dtype=self._dtype)
        rows["digest"], rows["features"] = digests, features
        name = sha256(digests.tobytes())[:32]
        partial = self._folder / f"{name}.{os.getpid()}.partial"
        with partial.open("wb") as file:
            np.save(file, rows)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._folder / f"{name}.npy")


def _prefixes(digests: Digests) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(digests[:, :8]).view(np.uint64).reshape(-1)


def fill(
    cache: TextCache,
    digests: Digests,
    texts_at: Callable[[npt.NDArray[np.int64]], list[str]],
    encode: Callable[[list[str]], npt.NDArray[np.float32]],
    *,
    rank: int = 0,
    world_size: int = 1,
    watch: Callable[[int], None] = lambda done: None,
    stopping: Callable[[], bool] = lambda: False,
) -> bool:
    """Embed this process's share of the texts that `cache` lacks. `digests` `[T, 32]` are distinct.

    `texts_at` gives the texts of positions, `encode` their features; `watch` is told how many texts are done. Texts go
    in the order of their digests, in fixed portions, so a fill that was interrupted and goes on makes the same bits.
    `stopping` is asked ahead of each portion; returns whether all were done.
    """
    order = np.lexsort(digests.T[::-1])
    portions = [order[first : first + SEGMENT_TEXTS] for first in range(0, len(order), SEGMENT_TEXTS)]
    done = 0
    for portion in portions[rank::world_size]:
        missing = portion[cache.rows(digests[portion]) < 0]
        if stopping():
            return False
        if len(missing):
            cache.add(digests[missing], encode(texts_at(missing)))
        done += len(portion)
        watch(done)
    cache.refresh()
    return True
