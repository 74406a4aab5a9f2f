"""`--task retrieval`: images and all their captions, both ways."""

from collections.abc import Iterator

import numpy as np

from trainer.errors import TrainingError
from trainer.evaluate.embed import Embedded
from trainer.evaluate.metrics import Metric
from trainer.evaluate.rank import measure, pair_texts
from trainer.evaluate.texts import TextEncoder
from trainer.evaluate.truth import Truth

USES_REGIONS = False


def check(truth: Truth) -> None:
    """Raise TrainingError where no image has a caption."""
    if not len(truth.captions):
        raise TrainingError("no image of the data has a caption: there is nothing to retrieve")


def run(embedded: Embedded, encoder: TextEncoder) -> Iterator[Metric]:
    """Yield `image_to_text_recall@k` and `text_to_image_recall@k` of the images that have captions."""
    truth = embedded.truth
    check(truth)
    counts = np.diff(truth.caption_start)
    rows = embedded.image.having(np.flatnonzero(counts[embedded.image.at] > 0))
    place = np.full(len(truth.images), -1, dtype=np.int64)
    place[rows.at] = np.arange(len(rows.at))
    owner = place[truth.caption_image]
    pairs, first = pair_texts(owner[owner >= 0], truth.caption_text_ids[owner >= 0])
    at = np.flatnonzero(owner >= 0)[first]
    texts = encoder.captions([truth.captions[i] for i in at])
    yield from measure(rows.features, texts, pairs, rows.at, "image")
