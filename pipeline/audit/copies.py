"""How often each caption occurs: 16 bytes for each different one, however many regions there are."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.dataset import Dataset
from schemas.reasons import Status

Counts = tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]
"""Sorted hashes of captions, and how many regions have each."""


def count_texts(dataset: Dataset) -> Counts:
    """Return the hashes of all captions, sorted, and how many regions have each."""
    parts: list[Counts] = []
    for shard in dataset.shards:
        rows = dataset.regions(["status", "region_id", "text_hash"], [shard])
        ok = pc.and_(pc.equal(rows["status"], Status.OK.value), pc.is_valid(rows["region_id"]))
        texts = pc.value_counts(rows.filter(ok)["text_hash"].drop_null())
        found = hash_numbers(texts.field("values"))
        order = np.argsort(found)
        parts.append((found[order], texts.field("counts").to_numpy()[order]))
        while len(parts) > 1 and len(parts[-2][0]) <= 2 * len(parts[-1][0]):  # each is joined a few times, not by all
            parts.append(_joined(parts.pop(), parts.pop()))
    while len(parts) > 1:
        parts.append(_joined(parts.pop(), parts.pop()))
    return parts[0] if parts else (np.zeros(0, np.uint64), np.zeros(0, np.int64))


def _joined(some: Counts, others: Counts) -> Counts:
    hashes, inverse = np.unique(np.concatenate([some[0], others[0]]), return_inverse=True)
    both = np.concatenate([some[1], others[1]])
    return hashes, np.bincount(inverse, weights=both, minlength=len(hashes)).astype(np.int64)


def hash_numbers(hashes: pa.Array) -> npt.NDArray[np.uint64]:
    """Return hex digits as numbers."""
    return np.frombuffer(bytes.fromhex("".join(hashes.to_pylist())), ">u8").astype(np.uint64)
