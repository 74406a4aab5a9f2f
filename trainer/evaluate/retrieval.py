"""`--task retrieval`: images and their captions, both ways."""

from collections.abc import Iterator

import pyarrow as pa
import torch

from trainer.data.index import SampleIndex
from trainer.errors import TrainingError
from trainer.evaluate.embed import Embedded
from trainer.evaluate.rank import rank_both_ways
from trainer.evaluate.texts import TextEncoder

USES_REGIONS = False


def check(index: SampleIndex) -> None:
    """Raise TrainingError where no image has a caption."""
    if not index.has_caption.any():
        raise TrainingError("no image of the data has a caption: there is nothing to retrieve")


def run(embedded: Embedded, encoder: TextEncoder) -> Iterator[tuple[str, float]]:
    """Yield `image_to_text_recall@k` and `text_to_image_recall@k`."""
    index, rows = embedded.index, embedded.image_rows
    captioned = index.has_caption[rows]
    captions = index.image_captions.take(pa.array(rows[captioned]))
    features = embedded.image[torch.from_numpy(captioned)]
    yield from rank_both_ways(features, captions, index.image_text_ids[rows[captioned]], encoder, "image")
