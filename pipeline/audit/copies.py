"""How often each caption occurs: 16 bytes for each different one, however many regions there are."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.dataset import Dataset
from schemas.reasons import Status


def count_texts(dataset: Dataset) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return the hashes of all captions, sorted, and how many regions have each."""
    hashes, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    for shard in dataset.shards:
        rows = dataset.regions(["status", "region_id", "text_hash"], [shard])
        ok = pc.and_(pc.equal(rows["status"], Status.OK.value), pc.is_valid(rows["region_id"]))
        texts = pc.value_counts(rows.filter(ok)["text_hash"].drop_null())
        more = hash_numbers(texts.field("values"))
        hashes, inverse = np.unique(np.concatenate([hashes, more]), return_inverse=True)
        both = np.concatenate([counts, texts.field("counts").to_numpy()])
        counts = np.bincount(inverse, weights=both, minlength=len(hashes)).astype(np.int64)
    return hashes, counts


def hash_numbers(hashes: pa.Array) -> npt.NDArray[np.uint64]:
    """Return hex digits as numbers."""
    return np.frombuffer(bytes.fromhex("".join(hashes.to_pylist())), ">u8").astype(np.uint64)
