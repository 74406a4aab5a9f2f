"""`--task region-retrieval`: boxes and their captions, both ways."""

from collections.abc import Iterator

import pyarrow as pa

from trainer.data.index import SampleIndex
from trainer.errors import TrainingError
from trainer.evaluate.embed import Embedded
from trainer.evaluate.rank import rank_both_ways
from trainer.evaluate.texts import TextEncoder

USES_REGIONS = True


def check(index: SampleIndex) -> None:
    """Raise TrainingError where the data has no region."""
    if not index.num_regions:
        raise TrainingError("no region of the data has a caption: there is nothing to retrieve")


def run(embedded: Embedded, encoder: TextEncoder) -> Iterator[tuple[str, float]]:
    """Yield `region_to_text_recall@k` and `text_to_region_recall@k`."""
    assert embedded.region is not None
    index, rows = embedded.index, embedded.region_rows
    captions = index.region_captions.take(pa.array(rows))
    yield from rank_both_ways(embedded.region, captions, index.region_text_ids[rows], encoder, "region")
