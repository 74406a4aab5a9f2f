"""Reading a unit: its samples in order, under their final keys, decoded ahead of the models by a few threads."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from pipeline.clock import StageClock
from pipeline.decode import DecodeSettings, decode
from pipeline.failures import Failure
from pipeline.plan import UnitPart
from pipeline.sample import Sample
from pipeline.sources import open_source
from pipeline.sources.base import SourceItem
from pipeline.sources.keys import with_prefix
from schemas.reasons import Reason, Stage

_AHEAD = 4
"""Images decoded ahead, a thread: enough to bridge a model call, few enough to hold large images in memory."""


def read_samples(
    parts: Sequence[UnitPart], settings: DecodeSettings, *, num_threads: int, clock: StageClock
) -> Iterator[Sample]:
    """Yield a unit's samples in order, each decoded or with the failure that ended it."""
    waiting: deque[Future[Sample]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        try:
            for sample in clock.timed("read", _unique(_items(parts))):
                waiting.append(pool.submit(_decode, sample, settings))
                if len(waiting) > num_threads * _AHEAD:
                    yield _next(waiting, clock)
            while waiting:
                yield _next(waiting, clock)
        finally:
            for future in waiting:
                future.cancel()


def _next(waiting: deque[Future[Sample]], clock: StageClock) -> Sample:
    with clock("decode"):
        return waiting.popleft().result()


def _decode(sample: Sample, settings: DecodeSettings) -> Sample:
    if sample.failure is None:
        decoded = decode(sample.item, settings)
        if isinstance(decoded, Failure):
            sample.failure = decoded
        else:
            sample.image = decoded
    sample.item = replace(sample.item, data=None)
    return sample


def _items(parts: Sequence[UnitPart]) -> Iterator[SourceItem]:
    for part in parts:
        for item in open_source(part.input.spec, part.input.kind).read(part.part):
            yield replace(item, key=with_prefix(item.key, part.input.prefix))


def _unique(items: Iterator[SourceItem]) -> Iterator[Sample]:
    """Yield a sample an item; one whose key was seen before in the unit has failed."""
    seen: dict[str, str] = {}
    for item in items:
        failure = item.failure
        if failure is None and item.key in seen:
            message = f"{item.uri} has the key of {seen[item.key]}"
            failure = Failure(reason=Reason.DUPLICATE_KEY, stage=Stage.READ, message=message)
        if failure is None:
            seen[item.key] = item.uri
        yield Sample(item=item, failure=failure)
