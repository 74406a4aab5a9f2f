"""Keys that lie in more than one shard: which of them is meant, nobody can tell."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.doctor.findings import Findings
from schemas.names import ShardName

_REMEDY = (
    "annotate again with the parts of the input as INPUTs of their own: each of several gets a prefix for its keys"
)

Hashes = npt.NDArray[np.uint64]


def hashes_of(texts: Iterable[str]) -> Hashes:
    """Return `[texts]` uint64: 8 bytes stand for a text, and two of 10 million are equal by chance in 3e-6 of runs."""
    digests = b"".join(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, np.uint64)


class Keys:
    """The keys of all shards, 8 bytes each."""

    def __init__(self) -> None:
        self._shards: list[ShardName] = []
        self._hashes: list[Hashes] = []

    def add(self, shard: ShardName, keys: Sequence[str]) -> None:
        """Add the keys of a shard, each once."""
        self._shards.append(shard)
        self._hashes.append(hashes_of(keys))

    def repeated(self) -> tuple[Hashes, list[ShardName]]:
        """Return the sorted hashes of keys in more than one shard, and the shards that hold any."""
        values, counts = np.unique(np.concatenate([np.zeros(0, np.uint64), *self._hashes]), return_counts=True)
        suspects = values[counts > 1]
        holds = [np.isin(hashes, suspects).any() for hashes in self._hashes]
        return suspects, [shard for shard, held in zip(self._shards, holds, strict=True) if held]


def report_repeated(suspects: Hashes, keys: Iterable[tuple[ShardName, Sequence[str]]], findings: Findings) -> None:
    """Report the keys whose hash is in `suspects`, at each shard but the first that holds them.

    `keys` are those of the shards that `Keys.repeated` named, in order.
    """
    first: dict[str, ShardName] = {}
    for shard, names in keys:
        for position in np.flatnonzero(np.isin(hashes_of(names), suspects)).tolist():
            key = names[position]
            if key in first:
                findings.error("repeated-key", f"{first[key]} holds this key too", remedy=_REMEDY, shard=shard, key=key)
            first.setdefault(key, shard)
