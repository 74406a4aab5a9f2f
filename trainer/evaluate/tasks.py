"""The tasks by name."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from trainer.evaluate import attributes, region_retrieval, regions, retrieval, words, zeroshot
from trainer.evaluate.embed import Embedded
from trainer.evaluate.metrics import Metric
from trainer.evaluate.settings import Task
from trainer.evaluate.texts import TextEncoder
from trainer.evaluate.truth import Truth


class Evaluator(Protocol):
    """A module that measures one task. Its `measure` is a pure function of features and truth."""

    USES_REGIONS: bool
    """Whether regions must be embedded."""

    def check(self, truth: Truth) -> None:
        """Raise TrainingError where it is known before anything is embedded that there is nothing to measure."""

    def run(self, embedded: Embedded, encoder: TextEncoder) -> Iterator[Metric]:
        """Yield metrics by name: scores of rows, or a number. Raises TrainingError as `check` does."""


EVALUATORS: Mapping[Task, Evaluator] = {
    "regions": regions,
    "attributes": attributes,
    "retrieval": retrieval,
    "region-retrieval": region_retrieval,
    "zeroshot": zeroshot,
    "words": words,
}
