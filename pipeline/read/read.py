"""Reading a unit: its samples in order, under their final keys, decoded ahead of the models by a few threads.

What filter lists take away is told here: an image is not even decoded, a given region is marked for `select`.
"""

import math
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import msgspec

from pipeline.read import open_source
from pipeline.read.base import Source, UnitPart, read_on
from pipeline.read.decode import decode
from pipeline.read.exclusions import Exclusions, ReadSettings
from pipeline.read.keys import with_prefix
from pipeline.sample import Drop, Sample, SourceItem
from schemas.reasons import Reason, Stage

_AHEAD = 4
"""Images decoded ahead, a thread: enough to bridge a model call."""
_MAX_BYTES_AHEAD = 512 * 2**20
"""Of files and of pixels that wait or are decoded ahead: what bounds the memory that large images take."""
_BYTES_A_PIXEL = 7
"""While it is decoded: four in Pillow's image, three in the array."""
_EXCLUDED = Drop(reason=Reason.EXCLUDED, stage=Stage.READ, message="a list of --filter takes the image away")


Opened = dict[tuple[str, str], Source]
"""The sources that a worker has opened, by spec and kind: to find out what lies there takes requests."""


def read_items(parts: Sequence[UnitPart], settings: ReadSettings, opened: Opened | None = None) -> Iterator[Sample]:
    """Yield the samples of a unit's parts in order, not decoded yet; one whose key was seen before is dropped.

    What is taken away is taken away, whatever else is wrong with it. `opened` keeps sources from unit to unit.
    """
    opened = {} if opened is None else opened
    seen: dict[str, str] = {}
    excluded = settings.excluded
    for part in parts:
        place = part.spec, part.kind
        if place not in opened:
            opened[place] = open_source(part.spec, part.kind, allow=settings.allow)
        source = opened[place]
        for item in read_on(part.spec, source.read(part.part)):
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
    sizes: deque[int] = deque()
    budget = _Budget(_MAX_BYTES_AHEAD)
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        try:
            for place, sample in enumerate(samples):
                sizes.append(len(sample.item.data or b""))
                waiting.append(pool.submit(_decode, sample, settings, budget, place))
                while len(waiting) > num_threads * _AHEAD or (len(waiting) > 1 and sum(sizes) > _MAX_BYTES_AHEAD):
                    sizes.popleft()
                    yield budget.taken(waiting.popleft().result())
            while waiting:
                yield budget.taken(waiting.popleft().result())
        finally:
            for future in waiting:
                future.cancel()
            budget.lift()


class _Budget:
    """The bytes of pixels that may be decoded ahead; the first in order is let in always, so that all get on."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._held: dict[int, int] = {}
        """Bytes, by the place of the sample."""
        self._first = 0
        """The place of the sample that is taken next."""
        self._changed = threading.Condition()

    def enter(self, place: int, num_bytes: int) -> None:
        """Wait until there is room for the pixels of the sample at `place`."""
        with self._changed:
            if place not in self._held:
                self._changed.wait_for(
                    lambda: place == self._first or sum(self._held.values()) + num_bytes <= self._limit
                )
                self._held[place] = num_bytes

    def shrink(self, place: int, num_bytes: int) -> None:
        """Say what is left to hold once the sample at `place` is decoded."""
        with self._changed:
            self._held[place] = num_bytes
            self._changed.notify_all()

    def taken(self, sample: Sample) -> Sample:
        """Return the sample that is first, and count it as taken."""
        with self._changed:
            self._held.pop(self._first, None)
            self._first += 1
            self._changed.notify_all()
        return sample

    def lift(self) -> None:
        """Let all in: nobody takes samples any more."""
        with self._changed:
            self._limit = math.inf
            self._changed.notify_all()


def _decode(sample: Sample, settings: ReadSettings, budget: _Budget, place: int) -> Sample:
    if sample.drop is None:
        decoded = decode(sample.item, settings, lambda pixels: budget.enter(place, pixels * _BYTES_A_PIXEL))
        if isinstance(decoded, Drop):
            sample.drop = decoded
        else:
            sample.image = decoded
        budget.shrink(place, 0 if sample.image is None else sample.image.pixels.nbytes)
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
