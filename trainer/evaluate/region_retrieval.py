"""`--task region-retrieval`: boxes and their captions, both ways."""

from collections.abc import Iterator

import numpy as np

from trainer.errors import TrainingError
from trainer.evaluate.embed import Embedded
from trainer.evaluate.metrics import Metric
from trainer.evaluate.rank import measure, pair_texts
from trainer.evaluate.texts import TextEncoder
from trainer.evaluate.truth import Truth

USES_REGIONS = True


def check(truth: Truth) -> None:
    """Raise TrainingError where no region has a caption."""
    if not any(caption is not None for caption in truth.region_captions):
        raise TrainingError("no region of the data has a caption: there is nothing to retrieve")


def run(embedded: Embedded, encoder: TextEncoder) -> Iterator[Metric]:
    """Yield `region_to_text_recall@k` and `text_to_region_recall@k` of the regions that have captions."""
    truth = embedded.truth
    check(truth)
    kept = [place for place, at in enumerate(embedded.region.at) if truth.region_captions[at] is not None]
    rows = embedded.region.having(np.array(kept, dtype=np.int64))
    pairs, first = pair_texts(np.arange(len(rows.at)), truth.region_text_ids[rows.at])
    texts = encoder.captions([truth.region_captions[i] or "" for i in rows.at[first]])
    yield from measure(rows.features, texts, pairs, truth.region_image[rows.at], "region")
