"""Which 64-bit hashes nearly agree: all pairs within `WITHIN` bits are found, without looking at all pairs.

A hash is four bands of 16 bits. Two hashes that differ in 7 bits or fewer have a band that differs in one bit at most,
so those whose band is the same, or one bit away, are all that must be compared.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipeline.audit.hashes import Hashes

WITHIN = 7
"""Bits, of 64, up to which hashes are told to be near."""
_BANDS, _BITS = 4, 16
_MASKS = (0, *(1 << bit for bit in range(_BITS)))
_AT_ONCE = 1 << 22
"""Pairs compared at a time."""
_NONE = np.int64((1 << 62) - 1)

Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""`[N]` distance in bits and `[N]` place of the nearest, the first of several; -1 in both where none is near."""


def nearest_earlier(hashes: Hashes, known: npt.NDArray[np.bool_]) -> Found:
    """Return for each hash (`[N]`, of those `known`) the nearest one that comes before it."""
    places = np.flatnonzero(known)
    unique, first, inverse = np.unique(hashes[places], return_index=True, return_inverse=True)
    best = np.full(len(unique), _NONE)
    for mine, other in _candidates(unique, unique):
        is_earlier = first[other] < first[mine]
        _keep_best(best, unique, unique, mine[is_earlier], other[is_earlier], first)
    distance, place = _decoded(best[inverse])
    is_copy = first[inverse] < np.arange(len(places))
    distance[is_copy], place[is_copy] = 0, first[inverse][is_copy]
    return _spread(distance, place, places, places, len(hashes))


def nearest_other(hashes: Hashes, known: npt.NDArray[np.bool_], others: Hashes) -> Found:
    """Return for each hash (`[N]`, of those `known`) the nearest of `others` (`[M]`, all known)."""
    places = np.flatnonzero(known)
    mine, inverse = np.unique(hashes[places], return_inverse=True)
    base, first = np.unique(others, return_index=True)
    best = np.full(len(mine), _NONE)
    for query, candidate in _candidates(mine, base):
        _keep_best(best, mine, base, query, candidate, first)
    distance, place = _decoded(best[inverse])
    return _spread(distance, place, places, np.arange(len(others)), len(hashes))


def _keep_best(
    best: npt.NDArray[np.int64],
    mine: Hashes,
    base: Hashes,
    query: npt.NDArray[np.int64],
    candidate: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
) -> None:
    """Keep in `best` the smallest distance, and of equal ones the first place, of the pairs that are near."""
    distance = np.bitwise_count(mine[query] ^ base[candidate]).astype(np.int64)
    near = distance <= WITHIN
    np.minimum.at(best, query[near], (distance[near] << 48) | first[candidate[near]])


def _candidates(queries: Hashes, base: Hashes) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield pairs of places in `queries` and `base` that may be near, some of them several times."""
    if not len(queries) or not len(base):
        return
    for band in range(_BANDS):
        shift = np.uint64(band * _BITS)
        of_base = ((base >> shift) & np.uint64(0xFFFF)).astype(np.int64)
        order = np.argsort(of_base, kind="stable")
        starts = np.searchsorted(of_base[order], np.arange((1 << _BITS) + 1))
        of_queries = ((queries >> shift) & np.uint64(0xFFFF)).astype(np.int64)
        for mask in _MASKS:
            low = starts[of_queries ^ mask]
            counts = starts[(of_queries ^ mask) + 1] - low
            for block in _blocks(counts):
                times = counts[block]
                query = np.repeat(np.arange(block.start, block.stop), times)
                position = np.arange(len(query)) + np.repeat(low[block] - (np.cumsum(times) - times), times)
                yield query, order[position]


def _blocks(counts: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Yield slices of queries that have about `_AT_ONCE` candidates together, at least one query each."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _AT_ONCE, side="right")))
        yield slice(start, stop)
        start = stop


def _decoded(best: npt.NDArray[np.int64]) -> Found:
    none = best == _NONE
    return np.where(none, -1, best >> 48), np.where(none, -1, best & ((1 << 48) - 1))


def _spread(
    distance: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
    base_places: npt.NDArray[np.int64],
    num: int,
) -> Found:
    """Return what was found of the known ones for all, with places among all."""
    whole, of = np.full(num, -1, dtype=np.int64), np.full(num, -1, dtype=np.int64)
    whole[places] = distance
    of[places] = np.where(place >= 0, base_places[place] if len(base_places) else -1, -1)
    return whole, of
