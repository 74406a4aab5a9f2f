"""The tasks by name."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from trainer.data.index import SampleIndex
from trainer.evaluate import region_retrieval, regions, retrieval, zeroshot
from trainer.evaluate.embed import Embedded
from trainer.evaluate.settings import Task
from trainer.evaluate.texts import TextEncoder


class Evaluator(Protocol):
    """A module that measures one task."""

    USES_REGIONS: bool
    """Whether regions must be embedded."""

    def check(self, index: SampleIndex) -> None:
        """Raise TrainingError where it is known before anything is embedded that there is nothing to measure."""

    def run(self, embedded: Embedded, encoder: TextEncoder) -> Iterator[tuple[str, float]]:
        """Yield metrics by name, each in [0, 1] or a number of rows. Raises TrainingError as `check` does."""


EVALUATORS: Mapping[Task, Evaluator] = {
    "regions": regions,
    "retrieval": retrieval,
    "region-retrieval": region_retrieval,
    "zeroshot": zeroshot,
}
