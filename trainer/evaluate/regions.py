"""`--task regions`: boxes against the names of their labels."""

from collections.abc import Iterator

import pyarrow as pa

from trainer.data.index import SampleIndex
from trainer.evaluate.classify import classify, distinct_names
from trainer.evaluate.embed import Embedded
from trainer.evaluate.texts import TextEncoder

USES_REGIONS = True


def check(index: SampleIndex) -> None:
    """Raise TrainingError where the data has nothing to classify."""
    distinct_names(index.labels, "region")


def run(embedded: Embedded, encoder: TextEncoder) -> Iterator[tuple[str, float]]:
    """Yield `region_accuracy@k` over boxes and over classes, and the level of chance."""
    assert embedded.region is not None
    labels = embedded.index.labels.take(pa.array(embedded.region_rows))
    yield from classify(embedded.region, labels, encoder, "region")
