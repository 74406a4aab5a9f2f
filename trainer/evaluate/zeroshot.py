"""`--task zeroshot`: images against class names, which are their captions."""

from collections.abc import Iterator

import pyarrow as pa

from trainer.data.index import SampleIndex
from trainer.evaluate.classify import classify, distinct_names
from trainer.evaluate.embed import Embedded
from trainer.evaluate.texts import TextEncoder

USES_REGIONS = False


def check(index: SampleIndex) -> None:
    """Raise TrainingError where the data has nothing to classify."""
    distinct_names(index.image_captions, "image")


def run(embedded: Embedded, encoder: TextEncoder) -> Iterator[tuple[str, float]]:
    """Yield `image_accuracy@k` over images and over classes, and the level of chance."""
    names = embedded.index.image_captions.take(pa.array(embedded.image_rows))
    yield from classify(embedded.image, names, encoder, "image")
