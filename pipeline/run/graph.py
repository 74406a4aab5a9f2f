"""The Beam graph: unit numbers go in, a worker annotates each, small endings come out.

    Create(units) -> GroupByKey -> Annotate                                   one pool
    Create(units) -> GroupByKey -> Propose -> GroupByKey -> Caption           two pools, a full barrier between

Only unit numbers are elements; pixels never are. GroupByKey on ids is the one redistribution that every runner gets
right, and endings are for the log alone: what was committed is read from the markers.
"""

from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
from apache_beam.utils import shared

from pipeline.run.worker import Worker, WorkerSettings

Element = tuple[int, Iterable[None]]
"""A unit's number, grouped."""


class _UnitFn(beam.DoFn):  # type: ignore[misc]  # Beam ships no types
    """Gives each unit to the process's one `Worker`."""

    def __init__(self, settings: WorkerSettings, handle: shared.Shared) -> None:
        self._settings = settings
        self._handle = handle

    def setup(self) -> None:
        """Take the process's worker, made once whatever the number of threads."""
        self._worker: Worker = self._handle.acquire(lambda: Worker(self._settings))


class _Annotate(_UnitFn):
    def process(self, element: Element) -> Iterator[str]:
        yield self._worker.annotate(element[0]).value


class _Propose(_UnitFn):
    def process(self, element: Element) -> Iterator[tuple[int, None]]:
        self._worker.propose(element[0])
        yield element[0], None


class _Caption(_UnitFn):
    def process(self, element: Element) -> Iterator[str]:
        yield self._worker.caption(element[0]).value


def build(pipeline: beam.Pipeline, units: Sequence[int], settings: WorkerSettings) -> None:
    """Add the graph that annotates `units` to a pipeline."""
    handle = shared.Shared()
    todo = (
        pipeline
        | "Plan" >> beam.Create([(unit, None) for unit in units], reshuffle=False)
        | "Spread" >> beam.GroupByKey()
    )
    if settings.run.two_pools:
        proposed = todo | "Propose" >> beam.ParDo(_Propose(settings, handle))
        _ = proposed | "Barrier" >> beam.GroupByKey() | "Caption" >> beam.ParDo(_Caption(settings, handle))
    else:
        _ = todo | "Annotate" >> beam.ParDo(_Annotate(settings, handle))
