"""The Beam graph: unit numbers go in, and a worker does the stages of each.

    Create(units) -> GroupByKey -> Annotate                                   one pool
    Create(units) -> GroupByKey -> Propose -> GroupByKey -> Caption           two pools, a full barrier between
    Create(units) -> GroupByKey -> Recaption                                  new captions on old boxes

Only unit numbers are elements; pixels never are. GroupByKey on ids is the one redistribution that every runner gets
right. Nothing comes out: what was committed is read from the markers.
"""

from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
from apache_beam.utils import shared

from pipeline.run.worker import WorkerSettings

Element = tuple[int, Iterable[None]]
"""A unit's number, grouped."""


class _Stage(beam.DoFn):  # type: ignore[misc]  # Beam ships no types
    """Gives each unit to the process's one worker, for one of its stages."""

    def __init__(self, stage: str, settings: WorkerSettings, handle: shared.Shared) -> None:
        self._stage = stage
        self._settings = settings
        self._handle = handle

    def setup(self) -> None:
        """Take the process's worker, made once whatever the number of threads."""
        self._worker = self._handle.acquire(self._settings.worker)

    def process(self, element: Element) -> Iterator[tuple[int, None]]:
        """Do the stage of a unit, and hand its number on; how it ended is in the log."""
        getattr(self._worker, self._stage)(element[0])
        yield element[0], None


def build(pipeline: beam.Pipeline, units: Sequence[int], settings: WorkerSettings) -> None:
    """Add the graph that works on `units` to a pipeline: the stages in a row, a full barrier before each."""
    handle = shared.Shared()
    numbers = pipeline | "Plan" >> beam.Create([(unit, None) for unit in units], reshuffle=False)
    for stage in settings.stages:
        name = stage.capitalize()
        numbers = numbers | f"Before{name}" >> beam.GroupByKey() | name >> beam.ParDo(_Stage(stage, settings, handle))
