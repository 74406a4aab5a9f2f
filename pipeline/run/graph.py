"""The Beam graph: unit numbers go in, workers do the stages of each, unit numbers come out.

    Create(units) -> GroupByKey -> Annotate                                   one pool
    Create(units) -> GroupByKey -> Propose -> GroupByKey -> Caption           two pools, a full barrier between
    Create(units) -> GroupByKey -> Recaption                                  new captions on old boxes

Only unit numbers are elements; pixels never are. GroupByKey on ids is the one redistribution that every runner gets
right. What an id that comes out says is only that the worker it was given to found nothing left to do: what was
committed is read from the markers.

A step with a resource hint gets an environment of its own, and what enters and leaves it is written out and read again:
a reason more to let nothing but ids through.
"""

from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
from apache_beam.utils import shared

from pipeline.run.share import Share
from pipeline.run.worker import Worker, WorkerSettings

Element = tuple[int, Iterable[None]]
"""A unit's number, grouped."""


class _Stage(beam.DoFn):  # type: ignore[misc]  # Beam ships no types
    """Hands a unit to the process's one worker, which then goes on with what is left of the pass."""

    def __init__(self, stage: str, units: Sequence[int], settings: WorkerSettings, worker: shared.Shared) -> None:
        self._stage, self._units, self._settings = stage, tuple(units), settings
        self._shared_worker, self._shared_share = worker, shared.Shared()

    def setup(self) -> None:
        """Take the process's worker and its share, made once whatever the number of threads."""
        self._worker: Worker = self._shared_worker.acquire(self._settings.worker)
        self._share: Share = self._shared_share.acquire(lambda: Share(self._settings, self._units, self._stage))

    def process(self, element: Element) -> Iterator[tuple[int, None]]:
        """Work, and yield the id that was given: the next stage has as many."""
        self._share.work_on(element[0], getattr(self._worker, self._stage))
        yield element[0], None


def build(pipeline: beam.Pipeline, units: Sequence[int], settings: WorkerSettings) -> None:
    """Add the graph that works on `units` to a pipeline: the stages in a row, a full barrier before each."""
    worker, run = shared.Shared(), settings.run
    accelerators = {"propose": run.propose_accelerator, "caption": run.caption_accelerator}
    numbers = pipeline | "Plan" >> beam.Create([(unit, None) for unit in units], reshuffle=False)
    for stage in settings.stages:
        name = stage.capitalize()
        step = beam.ParDo(_Stage(stage, units, settings, worker))
        accelerator = accelerators.get(stage)
        if accelerator:
            step = step.with_resource_hints(accelerator=accelerator)
        numbers = numbers | f"Before{name}" >> beam.GroupByKey() | name >> step
