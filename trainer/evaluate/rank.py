"""Finding the text of an image or region among the distinct texts of the data, and the other way."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from trainer.errors import TrainingError
from trainer.evaluate.metrics import recalls
from trainer.evaluate.texts import TextEncoder


def rank_both_ways(
    features: Tensor, captions: pa.ChunkedArray, text_ids: npt.NDArray[np.int64], encoder: TextEncoder, what: str
) -> Iterator[tuple[str, float]]:
    """Yield recalls at 1, 5 and 10 of rows `[N, D]` and their captions.

    `text_ids` `[N]` are equal for captions equal after normalisation: these are one text, and finding it is right
    wherever it stands. Raises TrainingError where there are no rows.
    """
    if not len(text_ids):
        raise TrainingError(f"no {what} of the data has a caption: there is nothing to retrieve")
    _, first, text_of_row = np.unique(text_ids, return_index=True, return_inverse=True)
    texts = encoder.captions(captions.take(pa.array(first)).to_pylist())
    owner, each = torch.from_numpy(text_of_row.astype(np.int64)), torch.arange(len(texts))
    to_text = recalls(features, texts, lambda rows: owner[rows, None] == each[None])
    to_row = recalls(texts, features, lambda rows: each[rows, None] == owner[None])
    yield from ((f"{what}_to_text_recall@{k}", value) for k, value in to_text.items())
    yield from ((f"text_to_{what}_recall@{k}", value) for k, value in to_row.items())
    yield f"num_{what}s", float(len(owner))
    yield "num_texts", float(len(texts))
