"""Reading a unit: its samples in order, under their final keys, decoded ahead of the models by a few threads.

What filter lists take away is told here: an image is not even decoded, a given region is marked for `select`.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import msgspec

from pipeline.read import open_source
from pipeline.read.base import UnitPart, input_errors
from pipeline.read.decode import decode
from pipeline.read.exclusions import Exclusions, ReadSettings
from pipeline.read.keys import with_prefix
from pipeline.sample import Drop, Sample, SourceItem
from schemas.reasons import Reason, Stage

_AHEAD = 4
"""Images decoded ahead, a thread: enough to bridge a model call, few enough to hold large images in memory."""
_EXCLUDED = Drop(reason=Reason.EXCLUDED, stage=Stage.READ, message="a list of --filter takes the image away")


def read_items(parts: Sequence[UnitPart], settings: ReadSettings) -> Iterator[Sample]:
    """Yield the samples of a unit's parts in order, not decoded yet; one whose key was seen before is dropped.

    What is taken away is taken away, whatever else is wrong with it.
    """
    seen: dict[str, str] = {}
    excluded = settings.excluded
    for part in parts:
        source = open_source(part.spec, part.kind, allow=settings.allow)
        for item in input_errors(part.spec, source.read(part.part)):
            item = replace(item, key=with_prefix(item.key, part.prefix))
            if item.key in excluded.images:
                yield Sample(item=item, drop=_EXCLUDED)
                continue
            drop = item.drop
            if drop is None and item.key in seen:
                message = f"{item.uri} has the key of {seen[item.key]}"
                drop = Drop(reason=Reason.DUPLICATE_KEY, stage=Stage.READ, message=message)
            if drop is None:
                seen[item.key] = item.uri
            yield Sample(item=_without_regions(item, excluded), drop=drop)


def decoded_ahead(samples: Iterable[Sample], settings: ReadSettings, *, num_threads: int) -> Iterator[Sample]:
    """Yield the samples in order, each decoded, by a few threads ahead, or with the drop that ended it."""
    waiting: deque[Future[Sample]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        try:
            for sample in samples:
                waiting.append(pool.submit(_decode, sample, settings))
                if len(waiting) > num_threads * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _decode(sample: Sample, settings: ReadSettings) -> Sample:
    if sample.drop is None:
        decoded = decode(sample.item, settings)
        if isinstance(decoded, Drop):
            sample.drop = decoded
        else:
            sample.image = decoded
    sample.item = replace(sample.item, data=None)
    return sample


def _without_regions(item: SourceItem, excluded: Exclusions) -> SourceItem:
    """Return the item with its given regions marked that are taken away."""
    if not excluded.regions or not item.given:
        return item
    given = (
        msgspec.structs.replace(region, excluded=(item.key, region.id) in excluded.regions) for region in item.given
    )
    return replace(item, given=tuple(given))
