"""Cutting a source into shards' worth of samples."""

from collections.abc import Iterable, Iterator, Sequence

from pipeline.read.base import ListedItem, SourcePart


def list_parts(items: Sequence[ListedItem], shard_size: int) -> Iterator[tuple[SourcePart, ...]]:
    """Yield one part a shard, with `shard_size` of the listed samples (the last with what is left)."""
    for start in range(0, len(items), shard_size):
        listed = tuple(items[start : start + shard_size])
        yield (SourcePart(uri="", start=start, stop=start + len(listed), items=listed),)


def pack_parts(counts: Iterable[tuple[str, int]], shard_size: int) -> Iterator[tuple[SourcePart, ...]]:
    """Yield shards of `shard_size` samples that follow each other through files: the parts of each.

    `counts` gives (uri, number of items); a file that can only yield one failed item counts 1.
    """
    shard: list[SourcePart] = []
    room = shard_size
    for uri, count in counts:
        start = 0
        while start < count:
            taken = min(count - start, room)
            shard.append(SourcePart(uri=uri, start=start, stop=start + taken))
            start, room = start + taken, room - taken
            if room == 0:
                yield tuple(shard)
                shard, room = [], shard_size
    if shard:
        yield tuple(shard)
